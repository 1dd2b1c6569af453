"""Packs: a store in one tar file, and tar files from strangers."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_stores import add_collection, add_rows, damage, files_of, rows_of

from era_cache.cli import store_share
from era_cache.errors import EraError, FormatError, InputError, StoreError
from era_cache.store.store import Store
from era_cache.store.sync import pack, packs, places, unpack
from era_cache.store.sync.transfer import KindCounts, RefusedError

SEGMENT = f"encoders/m-query-000000000000/segments/{'0' * 64}.h5"
RECORD = b'{"format": "era-store", "version": 1}'


@pytest.fixture
def source(tmp_path, toy):
    path = tmp_path / "source"
    add_collection(path, toy)
    add_rows(path, [(1, 2), (3,)])
    add_rows(path, [(4,)], name="n" * 64)
    return path


@pytest.fixture
def packed(source, tmp_path):
    pack(source, tmp_path / "store.tar")
    return tmp_path / "store.tar"


def tar_of(path, members, **options):
    """A tar file of (TarInfo or name, bytes)."""
    with tarfile.open(path, "w", **options) as tar:
        for member, data in [*members, ("store.json", RECORD)]:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def outside(root, into):
    """Every path under ``root`` that is not in ``into``."""
    return {path for path in root.rglob("*") if into not in (path, *path.parents)}


def test_a_store_comes_back_as_it_was(source, packed, into):
    report = unpack(packed, into)
    assert {n: d for n, d in files_of(into).items() if n != "store.json"} == {
        n: d for n, d in files_of(source).items() if n != "store.json"
    }
    assert rows_of(into) == rows_of(source)
    assert report.kinds["segment"] == KindCounts(3, 0, 0, 0)
    assert unpack(packed, into).files == []


def test_equal_stores_give_equal_packs(source, packed, tmp_path, into):
    shutil.copytree(source, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1e9, 1e9))
    report = pack(tmp_path / "copy", tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()
    assert report.files == sorted(files_of(source))
    unpack(packed, into)
    pack(into, tmp_path / "third.tar")
    assert (tmp_path / "third.tar").read_bytes() == packed.read_bytes()


def test_a_pack_is_a_plain_sorted_tar_that_tells_nothing_of_its_maker(source, packed):
    with tarfile.open(packed, "r:") as tar:
        members = tar.getmembers()
        content = {m.name: tar.extractfile(m).read() for m in members}
    assert content == files_of(source)
    assert [m.name for m in members] == sorted(content)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    assert packed.stat().st_size % tarfile.RECORDSIZE == 0


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar command")
def test_the_tar_command_reads_packs_and_writes_them(source, packed, into, tmp_path):
    listed = subprocess.run(["tar", "tf", packed], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == sorted(files_of(source))
    for form in ("gnu", "pax", "ustar"):
        own = tmp_path / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "-cf", own, "-C", source, "."], check=True)
        target = tmp_path / form
        assert unpack(own, target).kinds["segment"] == KindCounts(3, 0, 0, 0)
        assert rows_of(target) == rows_of(source)


def test_two_folders_of_one_encoder_are_packed_as_one(tmp_path):
    (shared,) = add_rows(tmp_path / "a", [(1,)], name="b", model="same")
    add_rows(tmp_path / "b", [(2,)], name="a", model="same")
    shutil.copytree(tmp_path / "a/encoders", tmp_path / "b/encoders", dirs_exist_ok=True)
    shutil.copy(shared, next((tmp_path / "b/encoders").glob("a-*/segments")))
    pack(tmp_path / "b", tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar", "r:") as tar:
        names = tar.getnames()
    assert names == sorted(set(names))
    assert [name.startswith("encoders/a-") for name in names] == [True, True, True, False]


def test_a_pack_adds_to_a_store(packed, into):
    add_rows(into, [(9,)])
    unpack(packed, into)
    assert len(rows_of(into)) == 5


def test_a_dry_run_writes_nothing(packed, into):
    assert len(unpack(packed, into, dry_run=True).files) == 8
    assert not into.exists()


def test_a_pack_never_takes_the_place_of_a_file(source, packed):
    before = packed.read_bytes()
    with pytest.raises(InputError, match=r"store.tar: exists"):
        pack(source, packed)
    assert packed.read_bytes() == before


def test_a_failed_pack_leaves_nothing(source, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="nothing: not a store"):
        pack(tmp_path / "nothing", tmp_path / "folder/x.tar")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packs.PackWriter, "send", full)
    with pytest.raises(StoreError, match="The disk is full"):
        pack(source, tmp_path / "folder/x.tar")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_damaged_segment_is_left_out_of_a_pack(source, tmp_path, into):
    bad = next(source.glob("encoders/model-*/segments/*.h5"))
    damage(bad)
    with pytest.raises(RefusedError, match=str(bad)):
        pack(source, tmp_path / "x.tar")
    assert unpack(tmp_path / "x.tar", into).kinds["segment"] == KindCounts(2, 0, 0, 0)


def test_a_damaged_member_is_named_and_the_others_arrive(source, packed, into):
    data = packed.read_bytes()
    bad = next(source.glob("encoders/model-*/segments/*.h5"))
    packed.write_bytes(data.replace(bad.read_bytes()[-20:], bytes(20)))
    with pytest.raises(RefusedError, match=f"{packed}/.*{bad.name}: the content"):
        unpack(packed, into)
    assert len(list(into.glob("encoders/*/segments/*.h5"))) == 2
    packed.write_bytes(data)
    assert len(unpack(packed, into).files) == 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_pack_that_was_cut_off_is_never_taken_for_whole(source, packed, tmp_path, share):
    data = packed.read_bytes()
    end = len(data.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[: int(share * end)])
    target = tmp_path / "cut"
    with pytest.raises((FormatError, StoreError), match=f"{cut}"):
        unpack(cut, target)
    assert not target.exists()


def test_a_tar_that_ends_between_two_members_is_never_taken_for_whole(tmp_path, into):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (("store.json", RECORD), ("junk", b""), (SEGMENT, b"")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(data[: 3 * 512])
    with pytest.raises(FormatError, match="cut off"):
        unpack(tmp_path / "x.tar", into)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.integers(0, 10_000), at=st.integers(0, 511), value=st.integers(0, 255))
def test_no_damage_writes_outside_or_passes_unseen(source, packed, tmp_path, block, at, value):
    data = bytearray(packed.read_bytes())
    headers = [i for i in range(0, len(data), 512) if data[i + 257 : i + 262] == b"ustar"]
    data[headers[block % len(headers)] + at] = value
    bad, target = tmp_path / "bad.tar", tmp_path / "bad"
    bad.write_bytes(data)
    shutil.rmtree(target, ignore_errors=True)
    before = outside(tmp_path, target)
    try:
        unpack(bad, target)
    except EraError:
        pass
    else:
        assert rows_of(target).items() <= rows_of(source).items()
    assert outside(tmp_path, target) == before


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: b"BZh9" + data])
def test_compressed_or_other_files_are_no_packs(packed, into, compress):
    packed.write_bytes(compress(packed.read_bytes()))
    with pytest.raises(FormatError, match="not an uncompressed tar file"):
        unpack(packed, into)
    packed.write_bytes(b"")
    with pytest.raises(FormatError, match="not an uncompressed tar file"):
        unpack(packed, into)
    assert not into.exists()


def test_what_is_no_file_is_no_pack(tmp_path, into):
    with pytest.raises(StoreError, match="does not exist"):
        unpack(tmp_path / "nothing.tar", into)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a file"):
        unpack(tmp_path / "pipe", into)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/evil",
        "encoders/../../evil",
        f"encoders/../segments/{'0' * 64}.h5",
        f"../{SEGMENT}",
        f"/{SEGMENT}",
        f"x/{SEGMENT}",
        f"{SEGMENT}/x",
        f"{SEGMENT}\n",
        SEGMENT.replace("/", "\\"),
        "encoders/m-query-000000000000/retired/" + SEGMENT[-67:],
        "collections/.tmp-1.h5",
    ],
)
def test_members_that_no_store_has_are_passed_over(tmp_path, into, name):
    tar = tar_of(tmp_path / "x.tar", [(name, b"evil")])
    before = outside(tmp_path, into)
    assert unpack(tar, into).refused == {}
    assert outside(tmp_path, into) == before
    assert [p.name for p in into.rglob("*") if p.is_file()] == ["store.json"]


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
    ],
)
@pytest.mark.parametrize("name", [SEGMENT, "collections"])
def test_links_and_devices_are_refused(tmp_path, into, kind, name):
    if (kind, name) == (tarfile.DIRTYPE, "collections"):
        return
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    tar = tar_of(tmp_path / "x.tar", [(member, b"")])
    with pytest.raises(RefusedError, match=f"'{name}' is a link or another special member"):
        unpack(tar, into)
    assert [p.name for p in into.rglob("*") if not p.is_dir()] == ["store.json"]
    assert not any(p.is_symlink() for p in into.rglob("*"))


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"},
        {"GNU.sparse.map": "0,99999999999", "GNU.sparse.size": "99999999999"},
        {"GNU.sparse.size": "9" * 99},
        {"size": "-1000000"},
        {"size": "9" * 30},
        {"size": "x"},
    ],
)
def test_headers_that_change_a_size_do_no_harm(tmp_path, into, headers):
    member = tarfile.TarInfo(SEGMENT)
    member.pax_headers = headers
    tar = tar_of(tmp_path / "x.tar", [(member, b"1\n0\n4\n" + bytes(600))])
    with pytest.raises(EraError, match=str(tar)):
        unpack(tar, into)
    assert list(into.rglob("*.h5")) == []


def header(size, kind=tarfile.XHDTYPE, name="x"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_endless_header_is_not_read_into_memory(tmp_path, into, kind):
    tar = tmp_path / "x.tar"
    with tar.open("wb") as file:
        file.write(header(1 << 36, kind))
        file.truncate(1 << 37)  # a file of holes
    with pytest.raises(FormatError, match="an extended header is too long"):
        unpack(tar, into)


def test_many_headers_of_one_member_are_an_error(tmp_path, into):
    record = b"8 a=bcd\n".ljust(512, b"\0")
    tar = tmp_path / "x.tar"
    tar.write_bytes((header(8) + record) * 5000 + header(0, tarfile.REGTYPE))
    with pytest.raises(FormatError, match="not an uncompressed tar file"):
        unpack(tar, into)


def test_a_member_of_negative_size_is_an_error(tmp_path, into):
    tar = tmp_path / "x.tar"
    tar.write_bytes(header(0, tarfile.REGTYPE) + header(-1024, tarfile.REGTYPE) + bytes(1024))
    with pytest.raises(FormatError, match="negative size"):
        unpack(tar, into)


def test_too_many_members_are_an_error(tmp_path, into, monkeypatch):
    monkeypatch.setattr(places, "MAX_NAMES", 5)
    tar = tar_of(tmp_path / "x.tar", [(f"junk{n}", b"") for n in range(6)])
    with pytest.raises(StoreError, match="more than 5 names"):
        unpack(tar, into)


def test_members_larger_than_their_kind_are_refused_unread(tmp_path, into):
    pair = f"pairs/{'0' * 12}-{'0' * 12}.json"
    tar = tar_of(tmp_path / "x.tar", [(pair, bytes(70_000))])
    with pytest.raises(RefusedError, match="70000 bytes; at most 65536"):
        unpack(tar, into)


def test_a_tar_without_a_store_is_no_pack(tmp_path, into):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("junk"))
    with pytest.raises(StoreError, match=r"x.tar: not a store"):
        unpack(tmp_path / "x.tar", into)
    assert not into.exists()


def test_an_empty_store_makes_a_round(tmp_path, into):
    Store.create(tmp_path / "empty")
    pack(tmp_path / "empty", tmp_path / "x.tar")
    unpack(tmp_path / "x.tar", into)
    assert Store.open(into).encoders() == []


def test_commands_pack_and_unpack(source, tmp_path, into):
    tar = str(tmp_path / "x.tar")
    done = CliRunner().invoke(store_share.pack, [str(source), tar])
    assert done.exit_code == 0, done.output
    assert "8 files" in done.stdout
    done = CliRunner().invoke(store_share.unpack, [tar, str(into)])
    assert done.exit_code == 0
    assert rows_of(into) == rows_of(source)
    done = CliRunner().invoke(store_share.pack, [str(source), tar])
    assert (done.exit_code, done.stdout) == (1, "")
