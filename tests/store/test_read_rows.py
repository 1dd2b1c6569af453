"""Reading in bulk: dense, sparse, in order, shuffled, of any form, while files move away."""

from __future__ import annotations

import contextlib
import errno

import numpy as np
import pytest
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.collection.keys import row_keys
from era_cache.disk.hdf5 import PlainWriter, write_plain
from era_cache.errors import EncoderError, EraError, FormatError, InputError, StoreError
from era_cache.store import read_rows as reading
from era_cache.store.encoder_record import stated_spec
from era_cache.store.precision import check_vectors
from era_cache.store.read_rows import mapped_rows, read_blocks, read_rows
from era_cache.store.retired import retire
from era_cache.store.segment import segment_attributes
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

DIM = 5
SPEC = HashEncoder(DIM).spec
FORMS = ("float32", "float16", "int8")


def made(count, seed=0):
    """Keys, and vectors that are no unit vectors."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    return keys, (rng.standard_normal((count, DIM)) * 3).astype(np.float32)


def as_stored(vectors, dtype):
    return check_vectors(vectors, dtype, str, "M").to_float32()


@pytest.fixture
def encoder(tmp_path):
    return Store.create(tmp_path / "store").add_encoder(SPEC, Role.DOCUMENT, DIM)


@pytest.fixture(scope="module")
def three_segments(tmp_path_factory):
    """Three segments of three forms, 500 rows in all, and what each row must be."""
    store = Store.create(tmp_path_factory.mktemp("reading") / "store")
    encoder = store.add_encoder(SPEC, Role.DOCUMENT, DIM)
    keys, vectors = made(500)
    expected = np.empty_like(vectors)
    for form, part in zip(FORMS, (slice(0, 100), slice(100, 400), slice(400, 500)), strict=True):
        rows = check_vectors(vectors[part], form, str, "M")
        SegmentWriter(encoder, {}).commit(keys[part], rows)
        expected[part] = rows.to_float32()
    return encoder, keys, expected


@settings(max_examples=80)
@given(
    st.one_of(
        st.lists(st.integers(0, 499), max_size=60),
        st.permutations(range(500)),
        st.tuples(st.integers(0, 499), st.integers(0, 499)).map(
            lambda ends: list(range(min(ends), max(ends)))
        ),
    ),
    st.integers(1, 40),
    st.integers(1, 400),
)
def test_any_rows_in_any_order_come_back_as_they_were_stored(
    three_segments, wanted, task_rows, buffer_bytes
):
    encoder, keys, expected = three_segments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_TASK_ROWS", task_rows)
        patch.setattr(reading, "_BUFFER_BYTES", buffer_bytes)
        found = encoder.vectors(keys[np.array(wanted, dtype=np.int64)])
    np.testing.assert_array_equal(found, expected[np.array(wanted, dtype=np.int64)])


def test_float32_rows_in_order_are_mapped_and_a_write_does_not_reach_the_store(encoder):
    keys, vectors = made(50)
    SegmentWriter(encoder, {}).commit(keys, vectors)
    found = encoder.vectors(keys[10:40])
    assert not found.flags.owndata
    np.testing.assert_array_equal(found, vectors[10:40])
    found[:] = 7
    np.testing.assert_array_equal(encoder.vectors(keys[10:40], check=True), vectors[10:40])


def test_only_one_run_of_float32_rows_of_one_segment_is_mapped(encoder):
    keys, vectors = made(60)
    SegmentWriter(encoder, {}).commit(keys[:30], vectors[:30])
    SegmentWriter(encoder, {}).commit(keys[30:], check_vectors(vectors[30:], "float16", str, "M"))
    index = encoder.index()
    for wanted, mapped in (
        (slice(0, 30), True),
        (slice(29, 31), False),  # across two segments
        (slice(30, 60), False),  # float16
        (slice(20, 10, -1), False),
        (slice(0, 30, 2), False),
        (slice(0, 0), False),
    ):
        positions = index.positions(keys[wanted])
        assert (mapped_rows(index, positions) is not None) == mapped


def test_rows_are_mapped_from_the_segment_they_lie_in(encoder):
    keys, vectors = made(90)
    for begin in (0, 30, 60):
        SegmentWriter(encoder, {}).commit(keys[begin : begin + 30], vectors[begin : begin + 30])
    index = encoder.index()
    assert len(index.segments) == 3
    for begin in (0, 30, 60):
        for wanted in (slice(begin, begin + 30), slice(begin + 7, begin + 12)):
            mapped = mapped_rows(index, index.positions(keys[wanted]))
            np.testing.assert_array_equal(mapped, vectors[wanted])


def test_mapped_rows_are_checked_to_the_last(encoder, monkeypatch):
    monkeypatch.setattr(reading, "_BUFFER_BYTES", 2 * 4 * DIM)
    keys, vectors = made(50)
    vectors[49, 4] = np.inf
    attributes = segment_attributes(encoder.spec.fingerprint, 50, DIM, "float32", "{}")
    (encoder.folder / "segments").mkdir()
    path = encoder.folder / "segments" / ("0" * 64 + ".h5")
    write_plain(path, {"keys": keys, "vectors": vectors}, attributes)
    index = encoder.index()
    with pytest.raises(FormatError, match="not finite"):
        mapped_rows(index, index.positions(keys))
    np.testing.assert_array_equal(mapped_rows(index, index.positions(keys[:49])), vectors[:49])


def test_a_given_array_is_filled_and_a_wrong_one_refused(encoder):
    keys, vectors = made(4)
    SegmentWriter(encoder, {}).commit(keys, vectors)
    out = np.zeros((4, DIM), np.float32)
    assert encoder.vectors(keys, out=out) is out
    np.testing.assert_array_equal(out, vectors)
    wrong = (np.zeros((3, DIM), "f4"), np.zeros((4, DIM + 1), "f4"), np.zeros((4, DIM), "f2"))
    for array in wrong:
        with pytest.raises(ValueError, match="out is"):
            encoder.vectors(keys, out=array)


@pytest.mark.parametrize("form", FORMS)
def test_a_segment_is_read_in_blocks_from_beginning_to_end(encoder, form):
    keys, vectors = made(101)
    SegmentWriter(encoder, {}).commit(keys, check_vectors(vectors, form, str, "M"))
    (segment,) = encoder.segments()
    blocks = [(k.copy(), r.to_float32()) for k, r in read_blocks(segment, block_bytes=500)]
    assert len(blocks) >= 5
    np.testing.assert_array_equal(np.concatenate([k for k, _ in blocks]), keys)
    np.testing.assert_array_equal(np.concatenate([r for _, r in blocks]), as_stored(vectors, form))


@pytest.mark.parametrize("form", FORMS)
def test_rows_far_apart_come_through_as_many_buffers_as_they_need(encoder, form, monkeypatch):
    monkeypatch.setattr(reading, "_BUFFER_BYTES", 2 * DIM * np.dtype(form).itemsize)  # two rows
    keys, vectors = made(200)
    SegmentWriter(encoder, {}).commit(keys, check_vectors(vectors, form, str, "M"))
    wanted = np.arange(3, 200, 7)
    expected = as_stored(vectors, form)[wanted]
    np.testing.assert_array_equal(encoder.vectors(keys[wanted]), expected)
    np.testing.assert_array_equal(encoder.vectors(keys[wanted[::-1]]), expected[::-1])


def test_keys_are_sorted_a_range_at_a_time_and_each_is_in_one():
    keys = np.array([0, (1 << 62) - 1, 1 << 62, 5 << 60, 1 << 63, (1 << 64) - 1], dtype=np.uint64)
    ranges = [reading._in_range(keys, 2, part).tolist() for part in range(4)]
    assert ranges == [keys[:2].tolist(), keys[2:4].tolist(), keys[4:5].tolist(), keys[5:].tolist()]
    assert reading._in_range(keys, 0, 0).tolist() == keys.tolist()


@pytest.mark.parametrize("spread", [1, 40])
def test_a_segment_that_was_retired_meanwhile_is_read_where_it_went(encoder, spread):
    keys, vectors = made(200)
    SegmentWriter(encoder, {}).commit(keys, vectors)
    index = encoder.index()
    retire([segment.path for segment in index.segments], by="0" * 64)
    out = np.empty((len(keys[::spread]), DIM), np.float32)
    read_rows(index, index.positions(keys[::spread]), out)
    np.testing.assert_array_equal(out, vectors[::spread])


def test_a_segment_that_is_gone_for_good_is_a_store_error(encoder):
    keys, vectors = made(3)
    path = SegmentWriter(encoder, {}).commit(keys, vectors)
    index = encoder.index()
    path.unlink()
    with pytest.raises(StoreError, match=path.name):
        read_rows(index, index.positions(keys), np.empty((3, DIM), np.float32))


@pytest.mark.parametrize("spread", [1, 40])
@pytest.mark.parametrize("form", FORMS)
def test_a_stored_value_that_is_not_finite_is_refused_wherever_it_is_read(encoder, form, spread):
    keys, vectors = made(200)
    rows = check_vectors(vectors, form, str, "M")
    array = rows.values if rows.scales is None else rows.scales
    array[120] = np.nan
    attributes = segment_attributes(encoder.spec.fingerprint, 200, DIM, form, "{}")
    (encoder.folder / "segments").mkdir()
    path = encoder.folder / "segments" / ("0" * 64 + ".h5")
    write_plain(path, {"keys": keys, **rows.arrays()}, attributes)
    with pytest.raises(FormatError, match="not finite"):
        encoder.vectors(keys[::spread])
    np.testing.assert_array_equal(encoder.vectors(keys[:40:spread]), rows.to_float32()[:40:spread])
    (segment,) = encoder.segments()
    blocks = read_blocks(segment, block_bytes=2000)
    next(blocks)
    with pytest.raises(FormatError, match=f"{path.name}: a stored vector is not finite"):
        for _ in blocks:
            pass


def test_the_api_finds_encoders_by_name_and_gives_tensors(tmp_path):
    import torch

    store = Store.create(tmp_path / "s")
    texts = ["one", "two", "three"]
    _, vectors = made(3)
    assert store.put(SPEC, Role.DOCUMENT, texts, vectors, dtype="float32") == 3
    keys = row_keys(Role.DOCUMENT, texts[::-1])
    found = store.vectors(SPEC.name, keys, device="cpu")
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), vectors[::-1])
    again = store.vectors(store.encoders()[0], keys, check=True)
    np.testing.assert_array_equal(again, vectors[::-1])


def test_put_stores_only_what_is_not_there_as_exactly(tmp_path):
    store = Store.create(tmp_path / "s")
    _, vectors = made(4)
    texts = ["a", "b", "c", "a"]
    assert store.put(SPEC, Role.QUERY, texts, vectors, dtype="int8") == 3
    assert store.put(SPEC, Role.QUERY, texts[:2], vectors[:2] + 1, dtype="int8") == 0
    assert store.put(SPEC, Role.QUERY, ["a"], vectors[3:] + 1, dtype="float32") == 1
    found = store.vectors(SPEC.name, row_keys(Role.QUERY, ["a", "b"]))
    np.testing.assert_array_equal(found[0], vectors[3] + 1)
    np.testing.assert_array_equal(found[1], as_stored(vectors[1:2], "int8")[0])


def test_put_tells_queries_by_their_instruction(tmp_path):
    store = Store.create(tmp_path / "s")
    _, vectors = made(2)
    store.put(SPEC, Role.QUERY, ["q", "q"], vectors, instructions=["one", "two"], dtype="float32")
    keys = row_keys(Role.QUERY, ["q", "q"], ["two", "one"])
    np.testing.assert_array_equal(store.vectors(SPEC.name, keys), vectors[::-1])
    with pytest.raises(StoreError, match="1 of 1 rows"):
        store.vectors(SPEC.name, row_keys(Role.QUERY, ["q"]))


def test_a_writer_seals_when_enough_has_come_and_keeps_the_first_of_equal_keys(encoder):
    keys, vectors = made(30)
    writer = SegmentWriter(encoder, {}, dtype="float32", seal_bytes=10 * DIM * 4)
    with writer:
        for start in range(0, 30, 5):
            writer.write(keys[start : start + 5], vectors[start : start + 5])
            assert len(encoder.segment_paths()) == (start + 5) // 10
        writer.write(keys[[7, 7]] ^ 1, vectors[[0, 1]])
    assert len(encoder.segment_paths()) == 1  # merged on leaving
    assert encoder.segments()[0].rows == 31
    np.testing.assert_array_equal(encoder.vectors(keys, check=True), vectors)
    np.testing.assert_array_equal(encoder.vectors(keys[[7]] ^ 1), vectors[:1])


def test_a_writer_left_by_an_error_keeps_what_it_was_given(encoder):
    keys, vectors = made(3)
    writer = SegmentWriter(encoder, {}, dtype="float32")
    with contextlib.suppress(RuntimeError), writer:
        writer.write(keys, vectors)
        raise RuntimeError
    np.testing.assert_array_equal(encoder.vectors(keys), vectors)


@pytest.mark.parametrize("form", FORMS)
def test_a_writer_does_not_see_what_its_caller_does_to_the_array_later(encoder, form):
    keys, vectors = made(3)
    buffer = np.empty((1, DIM), np.float32)
    with SegmentWriter(encoder, {}, dtype=form) as writer:
        for row in range(3):
            buffer[:] = vectors[row]
            writer.write(keys[row : row + 1], buffer)
        buffer[:] = np.nan
    np.testing.assert_array_equal(encoder.vectors(keys), as_stored(vectors, form))


def test_rows_that_could_not_be_flushed_are_not_forgotten(encoder, monkeypatch):
    keys, vectors = made(2)
    writer = SegmentWriter(encoder, {}, dtype="float32")
    original = PlainWriter.write

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with writer:
        writer.write(keys, vectors)
        monkeypatch.setattr(PlainWriter, "write", full)
        with pytest.raises(StoreError, match="disk is full"):
            writer.flush()
        monkeypatch.setattr(PlainWriter, "write", original)
    np.testing.assert_array_equal(encoder.vectors(keys), vectors)


def test_what_are_no_keys_or_vectors_is_refused_before_anything_is_taken(encoder):
    keys, vectors = made(2)
    with SegmentWriter(encoder, {}) as writer:
        for bad_keys, bad in ((keys.astype(np.int64), vectors), (keys, vectors.astype(np.int32))):
            with pytest.raises(ValueError, match="keys are"):
                writer.write(bad_keys, bad)
        writer.write(keys, vectors)
    assert len(encoder.vectors(keys)) == 2
    for bad_keys in (keys.astype(np.int64), keys[:, :8], keys.reshape(-1)):
        with pytest.raises(ValueError, match="keys of dtype"):
            encoder.vectors(bad_keys)


def test_an_encoder_that_could_not_be_read_back_is_not_written(tmp_path):
    store = Store.create(tmp_path / "s")
    facts = {"model": "x", "more": "y" * (5 << 20)}
    for spec, dim in ((SPEC, 0), (SPEC, 2 << 20), (stated_spec("big", facts), 3)):
        with pytest.raises(EncoderError, match="cannot be stored"):
            store.add_encoder(spec, Role.DOCUMENT, dim)
    with pytest.raises(InputError, match="must be text"):
        stated_spec("m", {10: "a", 9: "b"})
    assert store.encoders() == []


def test_an_int8_scale_that_gives_no_number_is_refused(encoder):
    keys, vectors = made(2)
    for scale in (0, -1, np.inf, 3e38):
        rows = check_vectors(vectors, "int8", str, "M")
        rows.scales[1] = scale
        path = SegmentWriter(encoder, {}).commit(keys, rows)
        with pytest.raises(FormatError, match="not finite"):
            encoder.vectors(keys)
        path.unlink()


@pytest.mark.parametrize("part", ["collections", "pairs", "encoders"])
def test_a_part_of_a_store_that_is_a_link_is_not_written_through(tmp_path, toy_texts, part):
    store = Store.create(tmp_path / "s")
    (store.path / part).rmdir()
    (tmp_path / "elsewhere").mkdir()
    (store.path / part).symlink_to(tmp_path / "elsewhere")
    steps = {
        "collections": lambda: store.add_collection(toy_texts),
        "encoders": lambda: store.put(SPEC, Role.DOCUMENT, ["a"], made(1)[1]),
        "pairs": lambda: Store.create(store.path),
    }
    with pytest.raises(FormatError, match="a link"):
        steps[part]()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_record_that_is_a_link_is_refused(hash_store):
    path = hash_store.encoders()[0].folder / "encoder.json"
    path.rename(path.with_name("real.json"))
    path.symlink_to(path.with_name("real.json"))
    with pytest.raises(EraError, match="a symbolic link"):
        hash_store.encoders()
