"""The reader of HDF5 structure: it agrees with libhdf5 on our files, and refuses crafted ones."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import tarfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.mutate import hdf5_blocks, mutated, repaired
from era_cache.disk.hdf5 import inspect, write_plain
from era_cache.disk.hdf5.lookup3 import lookup3
from era_cache.disk.hdf5.messages import DTYPES
from era_cache.errors import FormatError

GOLDEN = Path(__file__).parents[1] / "golden"
NOWHERE = b"\xff" * 8


# The checksum


@pytest.mark.parametrize(
    ("text", "initial", "expected"),
    [
        # From the driver in lookup3.c.
        ("", 0, 0xDEADBEEF),
        ("", 0xDEADBEEF, 0xBD5B7DDE),
        ("Four score and seven years ago", 0, 0x17770551),
        ("Four score and seven years ago", 1, 0xCD628161),
    ],
)
def test_lookup3_gives_the_published_values(text, initial, expected):
    assert lookup3(text.encode(), initial) == expected


# Agreement with libhdf5


def by_h5py(path):
    with h5py.File(path) as file:
        slots = {
            name: (item.dtype, item.shape, item.id.get_offset() or 0) for name, item in file.items()
        }
        attributes = {
            name: value.decode("utf-8") if isinstance(value, bytes) else int(value)
            for name, value in file.attrs.items()
        }
    return slots, attributes


def assert_agrees(path):
    found = inspect(path)
    slots, attributes = by_h5py(path)
    assert {name: tuple(slot) for name, slot in found.slots.items()} == slots
    assert found.attributes == attributes


names = st.text("abcXYZ019_", min_size=1, max_size=12)
shapes = st.one_of(st.tuples(st.integers(0, 50)), st.tuples(st.integers(0, 20), st.integers(0, 20)))
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.builds(str.__mul__, st.sampled_from(["x", "ü", "中"]), st.integers(0, 20_000)),
)
values = st.one_of(texts, st.integers(-(2**63), 2**63 - 1))


@given(
    st.dictionaries(
        names, st.tuples(st.sampled_from(sorted(DTYPES, key=str)), shapes), max_size=14
    ),
    st.dictionaries(names, values, max_size=8),
)
def test_slots_and_attributes_are_those_that_libhdf5_reports(tmp_path_factory, layout, attributes):
    path = tmp_path_factory.getbasetemp() / "agree.h5"
    arrays = {
        name: np.arange(np.prod(shape)).astype(dtype).reshape(shape)
        for name, (dtype, shape) in layout.items()
    }
    write_plain(path, arrays, attributes)
    assert_agrees(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(inspect(path).array(name), array)


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.h5")), ids=lambda path: path.name[:20])
def test_golden_files_read_as_libhdf5_reads_them(path):
    assert_agrees(path)


def test_what_h5py_changed_later_reads_the_same(tmp_path):
    path = tmp_path / "x.h5"
    write_plain(path, {"a": np.zeros(3), "b": np.ones((2, 2))}, {"format": "x", "number": 1})
    with h5py.File(path, "r+", libver="v110") as file:
        del file["a"]
        del file.attrs["format"]
        file.attrs["text"] = np.bytes_(b"later " * 100)
        for number in range(12):
            file[f"n{number}"] = np.arange(number)
    assert_agrees(path)


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_little_of_the_file_is_read(tmp_path, monkeypatch, size):
    path, counted, pread = tmp_path / "x.h5", [], os.pread
    write_plain(path, {"a": np.ones(size, "u1"), "b": np.ones((3, 16), "u1")}, {"format": "x"})
    monkeypatch.setattr(os, "pread", lambda *args: counted.append(args[1]) or pread(*args))
    inspect(path)
    assert sum(counted) < 2000


# Files made by hand


def u64(number):
    return number.to_bytes(8, "little")


def closed(data):
    return data + lookup3(data).to_bytes(4, "little")


def message(kind, body, flags=0):
    return bytes([kind]) + len(body).to_bytes(2, "little") + bytes([flags]) + body


def header(*messages, version=2, flags=2):
    body = b"".join(messages)
    return closed(b"OHDR" + bytes([version, flags]) + len(body).to_bytes(4, "little") + body)


def superblock(end, root, *, version=3, sizes=b"\x08\x08", flags=0, base=0, extension=NOWHERE):
    head = b"\x89HDF\r\n\x1a\n" + bytes([version]) + sizes + bytes([flags])
    return closed(head + u64(base) + extension + u64(end) + u64(root))


def link(name, address, head=b"\x01\x00"):
    return message(6, head + bytes([len(name)]) + name + u64(address))


def text(name, value):
    sizes = b"".join(n.to_bytes(2, "little") for n in (len(name) + 1, 8, 4))
    kind = b"\x13\x01\0\0" + len(value).to_bytes(4, "little")
    return message(12, b"\x03\0" + sizes + b"\0" + name + b"\0" + kind + b"\x02\0\0\0" + value)


LINK_INFO = message(2, b"\0\0" + 2 * NOWHERE)
GROUP_INFO = message(10, b"\0\0", 1)
SPACE = b"\x02\x01\x00\x01" + u64(4)
F4 = bytes.fromhex("11201f00 04000000 00002000 17080017 7f000000")
FILL = b"\x03\x0a"
DATA = np.array([1, 2, 3, 4], "<f4").tobytes()


def dataset(address, space=SPACE, kind=F4, fill=FILL, layout=None, more=b"", **options):
    layout = layout or b"\x03\x01" + u64(address) + u64(len(DATA))
    known = [message(1, space), message(3, kind, 1), message(5, fill, 1), message(8, layout)]
    return header(*known, more, **options)


def whole(root_more=b"", tail=b"", start=None, links=None, group=GROUP_INFO, **options):
    """A file of one dataset ``a``: superblock, root group, dataset header, data, ``tail``."""
    made = b""
    # Twice: the first round tells the addresses for the second.
    for _ in range(2):
        at = 48 + len(made)
        data_at = at + len(dataset(0, **options))
        members = links(at, data_at) if links else link(b"a", at)
        made = header(LINK_INFO, group, members, root_more)
    content = made + dataset(data_at, **options) + DATA + tail
    return superblock(48 + len(content), 48, **(start or {})) + content


def parsed(folder, data):
    path = folder / "made.h5"
    path.write_bytes(data)
    return inspect(path)


def test_a_file_made_by_hand_reads_the_same_by_both(tmp_path):
    made = parsed(tmp_path, whole(text(b"format", b"x")))
    np.testing.assert_array_equal(made.array("a"), [1, 2, 3, 4])
    assert made.attributes == {"format": "x"}
    assert_agrees(made.path)


@pytest.mark.parametrize(
    "options",
    [
        {"space": b"\x02\x01\x01\x01" + u64(4) + u64(4)},
        {"space": b"\x02\x02\x00\x01" + u64(2) + u64(2)},
        {"fill": b"\x02\x02\x02\x00"},
        {"fill": b"\x02\x02\x02\x01" + b"\x04\0\0\0" + bytes(4)},
        {"fill": b"\x03\x2a" + b"\x04\0\0\0" + bytes(4)},
        {"kind": bytes.fromhex("10080000 04000000 00002000")},
        {"more": message(0, bytes(100))},
        {"more": bytes(3)},
        {"tail": b"never mind"},
        {"root_more": message(0x15, b"\0\0" + 2 * NOWHERE, 4)},
    ],
)
def test_other_forms_that_hdf5_writes_are_read_as_it_reads_them(tmp_path, options):
    assert_agrees(parsed(tmp_path, whole(**options)).path)


def test_bytes_after_the_end_that_the_file_declares_are_refused(tmp_path):
    with pytest.raises(FormatError, match="4 bytes follow after its end"):
        parsed(tmp_path, whole() + b"more")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ({"version": 0}, "superblock version 00"),
        ({"version": 2}, "superblock version 02"),
        ({"version": 4}, "superblock version 04"),
        ({"sizes": b"\x04\x08"}, "superblock has an unknown form"),
        ({"sizes": b"\x08\x04"}, "superblock has an unknown form"),
        ({"flags": 1}, "did not close it"),
        ({"flags": 4}, "did not close it"),
        ({"base": 8}, "superblock has an unknown form"),
        ({"extension": u64(48)}, "superblock has an unknown form"),
    ],
)
def test_another_superblock_is_refused(tmp_path, start, reason):
    with pytest.raises(FormatError, match=reason):
        parsed(tmp_path, whole(start=start))


@pytest.mark.parametrize("root", [0, 20, 47, 49, 10**6, 2**63, 2**64 - 1])
def test_a_root_that_is_not_there_is_refused(tmp_path, root):
    data = whole()
    with pytest.raises(FormatError, match=r"object header of a known form|beyond its end"):
        parsed(tmp_path, superblock(len(data), root) + data[48:])


@pytest.mark.parametrize("cut", [1, 16, 60])
def test_a_file_shorter_than_it_declares_is_refused(tmp_path, cut):
    with pytest.raises(FormatError, match=r"it is cut off: \d+ of \d+ bytes"):
        parsed(tmp_path, whole()[:-cut])


def test_each_wrong_checksum_is_found(tmp_path):
    data = whole(text(b"format", b"x"))
    for at in [3, 40, 47, 60, 130, len(data) - len(DATA) - 2]:
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(FormatError, match=r"checksum of the block|not an HDF5 file"):
            parsed(tmp_path, damaged)


def changed_type(at, value):
    return {"kind": F4[:at] + bytes([value]) + F4[at + 1 :]}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        # Shape
        ({"space": b"\x01\x01\x00\x01" + u64(4)}, "unknown form"),
        ({"space": b"\x02\x00\x00\x01"}, "0 dimensions"),
        ({"space": b"\x02\x03\x00\x01" + 3 * u64(1)}, "3 dimensions"),
        ({"space": b"\x02\xff\x00\x01" + u64(4)}, "255 dimensions"),
        ({"space": b"\x02\x01\x00\x02" + u64(4)}, "dimensions"),
        ({"space": b"\x02\x02\x00\x01" + u64(4)}, "shape of 'a' is cut off"),
        ({"space": SPACE + b"\0"}, "1 bytes too many"),
        ({"space": b"\x02\x01\x01\x01" + u64(4) + u64(5)}, "could grow"),
        ({"space": b"\x02\x01\x01\x01" + u64(4) + NOWHERE}, "could grow"),
        ({"space": b"\x02\x01\x02\x01" + u64(4)}, "could grow"),
        ({"space": b"\x02\x01\x00\x01" + u64(5)}, r"shape \(5,\), but 16 bytes"),
        ({"space": b"\x02\x02\x00\x01" + u64(0) + u64(2**41)}, "claims the shape"),
        # 2^64 + 16 bytes, which 64-bit arithmetic would take for 16.
        ({"space": b"\x02\x02\x00\x01" + u64(2**31 + 2) + u64(2**31 - 2)}, "but 16 bytes"),
        # Type: version, byte order, padding, sign place, size, offset, precision, parts, bias
        *(
            (changed_type(at, value), "'a' has a type")
            for at, value in [
                (0, 0x31),
                (0, 0x12),
                (1, 0x21),
                (1, 0x60),
                (1, 0x22),
                (1, 0x10),
                (2, 30),
                (3, 1),
                (4, 8),
                (8, 1),
                (10, 31),
                (12, 22),
                (13, 9),
                (14, 1),
                (15, 24),
                (16, 0x7E),
                (17, 1),
            ]
        ),
        ({"kind": F4 + b"\0"}, "'a' has a type"),
        ({"kind": F4[:-1]}, "'a' has a type"),
        ({"kind": bytes.fromhex("10080000 04000000 00001f00")}, "'a' has a type"),
        ({"kind": bytes.fromhex("10010000 04000000 00002000")}, "'a' has a type"),
        ({"kind": bytes.fromhex("10000000 10000000 00008000")}, "'a' has a type"),
        # Fill value
        ({"fill": b"\x01\x02\x02\x00"}, "fill value of 'a' has an unknown form"),
        ({"fill": b"\x03\x2a" + b"\x05\0\0\0" + bytes(4)}, "fill value of 'a' is cut off"),
        ({"fill": b"\x03\x2a" + b"\xff\xff\xff\xff"}, "fill value of 'a' is cut off"),
        ({"fill": b"\x03\x0a\0"}, "too many"),
        ({"fill": b""}, "cut off"),
        # Layout
        ({"layout": b"\x03\x00\x10\x00" + DATA}, "not stored in one piece .*compact"),
        ({"layout": b"\x03\x02" + bytes(20)}, "not stored in one piece .*chunked"),
        ({"layout": b"\x04\x03" + bytes(12)}, "not stored in one piece .*virtual"),
        ({"layout": b"\x02\x01" + bytes(16)}, "unknown form"),
        ({"layout": b"\x03\x01" + u64(60)}, "layout of 'a' is cut off"),
        ({"layout": b"\x03\x01" + u64(60) + u64(15)}, "but 15 bytes"),
        ({"layout": b"\x03\x01" + NOWHERE + u64(16)}, "claims 16 bytes at 0"),
        ({"layout": b"\x03\x01" + u64(0) + u64(16)}, "claims 16 bytes at 0"),
        ({"layout": b"\x03\x01" + u64(2**63) + u64(16)}, "claims 16 bytes"),
        ({"layout": b"\x03\x01" + u64(2**64 - 16) + u64(16)}, "claims 16 bytes"),
        ({"layout": b"\x03\x01" + u64(8) + u64(16)}, "overlap"),
        ({"layout": b"\x03\x01" + u64(60) + u64(16)}, "overlap"),
        # Other messages
        ({"more": message(7, bytes(40))}, "data in other files"),
        ({"more": message(11, bytes(8))}, "filters"),
        ({"more": message(13, b"comment\0")}, "message of type 0xd"),
        ({"more": message(8, bytes(18))}, "two forms"),
        ({"more": message(1, SPACE)}, "two forms"),
        ({"more": message(0x18, b"")}, "message of type 0x18"),
        ({"more": message(0xEE, b"")}, "message of type 0xee"),
        ({"more": message(0, b"", 2)}, "shared with elsewhere"),
        ({"more": message(0, b"", 0x80)}, "flags 0x80"),
        ({"more": text(b"x", b"y")}, "message of type 0xc"),
        ({"more": b"\x00\xff\xff\x00" + bytes(10)}, "message is cut off"),
        ({"more": b"\x01"}, "unknown form"),
        ({"version": 1}, "object header of a known form"),
        ({"flags": 0x06}, "object header of a known form"),
        ({"flags": 0x42}, "object header of a known form"),
    ],
)
def test_another_dataset_is_refused(tmp_path, options, reason):
    with pytest.raises(FormatError, match=reason):
        parsed(tmp_path, whole(**options))


def attribute(name=b"x\0", kind=b"\x13\x01\0\0\x01\0\0\0", space=b"\x02\0\0\0", data=b"y", **other):
    sizes = [other.get("name_size", len(name)), len(kind), len(space)]
    head = other.get("head", b"\x03\0") + b"".join(n.to_bytes(2, "little") for n in sizes)
    return message(12, head + other.get("charset", b"\0") + name + kind + space + data)


INT64 = bytes.fromhex("10080000 08000000 00004000")


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (INT64, b"\xff" * 8, -1),
        (bytes.fromhex("10000000 08000000 00004000"), b"\xff" * 8, 2**64 - 1),
        (b"\x13\x01\0\0\x04\0\0\0", b"a\0b\0", "a\0b"),
        (b"\x13\x01\0\0\x01\0\0\0", b"\0", ""),
        (b"\x13\x01\0\0\x03\0\0\0", "中".encode(), "中"),
    ],
)
def test_an_attribute_is_read(tmp_path, kind, data, value):
    made = parsed(tmp_path, whole(attribute(kind=kind, data=data)))
    assert made.attributes == {"x": value}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (attribute(head=b"\x02\0"), "unknown form"),
        (attribute(head=b"\x03\x01"), "unknown form"),
        (attribute(charset=b"\x01"), "unknown form"),
        (attribute(name=b"xy"), "not a scalar"),
        (attribute(name=b""), "name b''"),
        (attribute(name=b"\0"), "name b''"),
        (attribute(name=b"a b\0"), "name b'a b'"),
        (attribute(name=b"\x1b[0m\0"), "name"),
        (attribute(name_size=60_000), "cut off"),
        (attribute(space=b"\x02\x01\0\x01" + u64(1)), "not a scalar"),
        (attribute(space=b"\x02\0\0\x02"), "not a scalar"),
        (attribute(space=b"\x01\0\0\0\0\0\0\0"), "not a scalar"),
        (attribute(data=b"yz"), "1 bytes too many"),
        (attribute(data=b""), "cut off"),
        (attribute(data=b"\xff"), "not UTF-8"),
        (attribute(kind=b"\x13\x01\0\0\xff\xff\xff\xff"), "4294967295 bytes"),
        (attribute(kind=b"\x13\x01\0\0\0\0\0\0", data=b""), "0 bytes, not 1 to 60000"),
        (attribute(kind=b"\x13\x00\0\0\x01\0\0\0"), "neither a text"),
        (attribute(kind=b"\x13\x11\0\0\x01\0\0\0"), "neither a text"),
        (attribute(kind=b"\x19\x01\0\0\x01\0\0\0"), "neither a text"),
        (attribute(kind=b"\x13\x01\0\0\x01\0\0\0\0"), "neither a text"),
        (attribute(kind=b""), "0 bytes, not 1 to 60000"),
        (attribute(kind=F4, data=bytes(4)), "neither a text"),
        (attribute(kind=bytes.fromhex("10080000 04000000 00002000"), data=bytes(4)), "neither"),
        (attribute() + attribute(), "same name"),
        (b"".join(attribute(name=b"a%d\0" % n) for n in range(33)), "more than 32"),
        (link(b"a", 100), "same name|known form"),
        (b"".join(link(b"b%d" % n, 100) for n in range(33)), "more than 32"),
        (link(b"b", 48), "'b' is not a dataset"),
        (link(b"b", 100, b"\x01\x08\x01"), "links are refused"),
        (link(b"b", 100, b"\x01\x18\x40\x01"), "links are refused"),
        (link(b"b", 100, b"\x01\x04" + bytes(8)), "unknown form"),
        (link(b"b", 100, b"\x02\x00"), "unknown form"),
        (link(b"../b", 100), "name b'../b'"),
        (link(b"", 100), "name b''"),
        (link(b"b" * 65, 100), "name b'bbb"),
        (message(6, b"\x01\x00\xffb"), "cut off"),
        (LINK_INFO, "two messages of type 0x2"),
        (message(10, b"\0\0"), "two messages of type 0xa"),
        (message(0x15, b"\0\0" + u64(100) + u64(200)), "attributes are stored outside"),
        (message(0x16, bytes(5)), "several links to one object"),
        (message(0x11, bytes(16)), "symbol table"),
        (message(0x0E, b""), "message of type 0xe"),
        (message(0x10, u64(10**9) + u64(100)), "beyond its end"),
        (message(0x10, u64(2**64 - 1) + u64(2**64 - 1)), "beyond its end"),
        (message(0x10, u64(100) + u64(0)), "cannot be"),
        (message(0x10, u64(100) + u64(40)), "no OCHK block"),
        (message(0x10, u64(100)), "cut off"),
    ],
)
def test_another_root_group_is_refused(tmp_path, more, reason):
    with pytest.raises(FormatError, match=reason):
        parsed(tmp_path, whole(more))


def test_a_root_that_is_a_dataset_is_refused(tmp_path):
    content = dataset(48)
    with pytest.raises(FormatError, match="root group has a message of type 0x1"):
        parsed(tmp_path, superblock(48 + len(content), 48) + content)
    with pytest.raises(FormatError, match="the root is not a group"):
        parsed(tmp_path, superblock(48 + len(header(bytes(20))), 48) + header(bytes(20)))


def test_a_group_that_hints_at_other_storage_is_refused(tmp_path):
    for group in (message(10, b"\0\1\x20\0\x10\0"), message(10, b"")):
        with pytest.raises(FormatError, match="root group has a message of type 0xa"):
            parsed(tmp_path, whole(group=group))


def test_data_that_end_behind_the_file_are_refused(tmp_path):
    size = len(whole())
    layout = b"\x03\x01" + u64(size - 15) + u64(16)
    with pytest.raises(FormatError, match=f"claims 16 bytes at {size - 15} of {size}"):
        parsed(tmp_path, whole(layout=layout))


def test_two_names_for_one_dataset_are_refused(tmp_path):
    with pytest.raises(FormatError, match="overlap"):
        parsed(tmp_path, whole(links=lambda at, _: link(b"a", at) + link(b"b", at)))


def test_two_datasets_with_the_same_data_are_refused(tmp_path):
    def links(at, data_at):
        return link(b"a", at) + link(b"b", data_at + len(DATA))

    size = len(whole(links=links))
    tail = dataset(size - len(DATA))
    assert len(parsed(tmp_path, whole(links=lambda at, _: link(b"a", at), tail=tail)).slots) == 1
    with pytest.raises(FormatError, match="overlap"):
        parsed(tmp_path, whole(links=links, tail=tail))


def chain(start, count, last):
    """Continuation blocks at ``start``, each of which leads to the next, the last to ``last``."""
    blocks = b""
    for number in range(count):
        following = start + 32 * (number + 1) if number + 1 < count else last
        leads = message(0x10, u64(following) + u64(32))
        blocks += closed(b"OCHK" + leads + bytes(4))
    assert len(blocks) == 32 * count
    return blocks


@pytest.mark.parametrize(
    ("count", "last", "reason"),
    [
        (1, 0, "overlap|more than 16"),
        (3, 1, "overlap|more than 16"),
        (40, 0, "more than 16 blocks"),
    ],
)
def test_continuations_in_a_circle_or_without_end_are_refused(tmp_path, count, last, reason):
    start = len(whole(message(0x10, bytes(16))))
    more = message(0x10, u64(start) + u64(32))
    with pytest.raises(FormatError, match=reason):
        parsed(tmp_path, whole(more, tail=chain(start, count, start + 32 * last)))


def test_continuations_that_end_are_followed(tmp_path):
    start = len(whole(message(0x10, bytes(16))))
    more = message(0x10, u64(start) + u64(32))
    end = closed(b"OCHK" + bytes(24))
    data = whole(more, tail=chain(start, 5, start + 160) + end)
    assert_agrees(parsed(tmp_path, data).path)
    with pytest.raises(FormatError, match="beyond its end"):
        parsed(tmp_path, superblock(len(data) - 1, 48) + data[48:-1])


def test_a_header_larger_than_a_mebibyte_is_refused_at_once(tmp_path):
    data = whole(message(0, bytes(60_000)) * 20)
    started = time.process_time()
    with pytest.raises(FormatError, match="its structure is larger than 1048576 bytes"):
        parsed(tmp_path, data)
    assert time.process_time() - started < 0.5


# Links in a heap: files of more than 8 datasets


@functools.cache
def many() -> bytes:
    return next(GOLDEN.rglob("golden-*.h5")).read_bytes()


def put(signature, at, value):
    """The file of many links with ``value`` put ``at`` bytes into a block, checksums repaired."""
    data, blocks = many(), hdf5_blocks(many())
    (block,) = [b for b in blocks if data.startswith(signature, b.start)]
    start = block.start + at
    return repaired(data[:start] + value + data[start + len(value) :], blocks)


def test_a_heap_of_links_is_read(tmp_path):
    assert len(parsed(tmp_path, put(b"FRHP", 4, b"\0")).slots) == 11


@pytest.mark.parametrize(
    ("signature", "at", "value", "reason"),
    [
        (b"FRHP", 4, b"\x01", "heap of links has an unknown form"),
        (b"FRHP", 5, b"\x08", "heap of links has an unknown form"),
        (b"FRHP", 7, b"\x01", "heap of links has an unknown form"),
        (b"FRHP", 9, b"\x00", "heap of links has an unknown form"),
        (b"FRHP", 112, u64(1 << 40), "heap of links has an unknown form"),
        (b"FRHP", 132, u64(2**63), "beyond its end"),
        (b"FRHP", 132, NOWHERE, "beyond its end"),
        (b"FRHP", 132, u64(48), "heap block at 48 is damaged"),
        (b"FRHP", 140, b"\x01", "heap of links has an unknown form"),
        (b"FHDB", 5, u64(48), "heap block at .* is damaged"),
        (b"FHDB", 13, b"\x01", "heap block at .* is damaged"),
        (b"FHDB", 0x15, b"\x02", "a link has an unknown form"),
        (b"FHDB", 0x17, b"\xff", "a link is cut off"),
        (b"FHDB", 0x18, b"x", "another name's hash"),
        (b"BTHD", 5, b"\x06", "B-tree of links has an unknown form"),
        (b"BTHD", 12, b"\x01", "B-tree of links has an unknown form"),
        (b"BTHD", 16, u64(48), "no BTLF block at 48"),
        (b"BTHD", 16, NOWHERE, "beyond its end"),
        (b"BTHD", 24, b"\xff\xff", "at most 32"),
        (b"BTHD", 26, u64(2**63), "at most 32"),
        (b"BTHD", 24, b"\x0a", "11 members"),
        (b"BTLF", 5, b"\x06", "node of links has an unknown form"),
        (b"BTLF", 10, b"\x10", "node of links has an unknown form"),
        (b"BTLF", 11, b"\0\0\0\0", "outside its heap"),
        (b"BTLF", 11, b"\xff\xff\xff\xff", "outside its heap"),
        (b"BTLF", 15, b"\xff\xff", "outside its heap"),
        (b"BTLF", 15, b"\x01\x00", "cut off"),
    ],
)
def test_another_heap_of_links_is_refused(tmp_path, signature, at, value, reason):
    with pytest.raises(FormatError, match=reason):
        parsed(tmp_path, put(signature, at, value))


def test_a_heap_block_with_another_head_than_its_checksum_covers_is_refused(tmp_path):
    at = many().index(b"FHDB")
    with pytest.raises(FormatError, match=r"heap block at .* is damaged"):
        parsed(tmp_path, many()[: at + 3] + b"b" + many()[at + 4 :])


def test_one_link_listed_twice_is_refused(tmp_path):
    data, blocks = many(), hdf5_blocks(many())
    (node,) = [b.start for b in blocks if data.startswith(b"BTLF", b.start)]
    twice = data[: node + 17] + data[node + 6 : node + 17] + data[node + 28 :]
    with pytest.raises(FormatError, match="same name"):
        parsed(tmp_path, repaired(twice, blocks))


# Random damage behind the checksums


def test_damaged_files_are_read_within_their_bounds_or_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_plain(path, {f"n{n}": np.arange(n) for n in range(1, 5)}, {"format": "x", "n": 1})
    seeds = [path.read_bytes(), *(p.read_bytes() for p in sorted(GOLDEN.rglob("*.h5")))]
    rng, read, refusals, slowest = random.Random(5), 0, [], 0.0
    for _ in range(3000):
        data = mutated(rng.choice(seeds), rng)
        path.write_bytes(data)
        started = time.perf_counter()
        try:
            found = inspect(path)
        except FormatError as error:
            refusals.append(str(error))
        else:
            read += 1
            for name, slot in found.slots.items():
                assert slot.offset + slot.nbytes <= len(data)
                np.array(found.array(name))
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1
    assert [text for text in refusals if not text.startswith(f"{path}: ")] == []
    # Otherwise the damage is too coarse to test anything but the checksums.
    assert 300 < read < 2000


# The damage itself


def tar_of(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("one", "folder/two"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


HEAD = b'{"weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"{}",
        b'{"a": [1, "b", null]}',
        b"{not json",
        b"plain bytes " * 10,
        b"\x89HDF\r\n\x1a\n",
        u64(len(HEAD)) + HEAD + bytes(16),
        tar_of(b"text" * 100),
    ],
    ids=lambda data: data[:8],
)
def test_damage_is_done_to_any_format_and_repeats_with_its_seed(data):
    results = [mutated(data, random.Random(seed)) for seed in range(300)]
    assert results == [mutated(data, random.Random(seed)) for seed in range(300)]
    changed = {result for result in results if result != data}
    assert len(changed) > min(150, 20 * len(data) + 20)


def test_damaged_archives_mostly_have_right_checksums():
    data, opened = tar_of(b"text" * 100), 0
    for seed in range(200):
        damaged = io.BytesIO(mutated(data, random.Random(seed)))
        # OverflowError is Python's own answer to a size of 2^88.
        with (
            contextlib.suppress(tarfile.TarError, ValueError, OverflowError),
            tarfile.open(fileobj=damaged) as archive,
        ):
            opened += len(archive.getnames()) == 2
    assert opened > 60
