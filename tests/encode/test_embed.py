"""Embedding: each text is encoded once, and whatever was finished survives any way of dying."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import HashEncoder

from era_cache.collection.keys import alignment_order, row_keys
from era_cache.collection.records import Dropped, TextCollection
from era_cache.disk import files
from era_cache.disk.hdf5 import PlainWriter
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import EncoderError, EraError, StoreError
from era_cache.store.encoder_record import render
from era_cache.store.records import ROLES
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Qrels, Role

CONFIG = EmbedConfig()


def collection(documents, queries=("find one", "find two"), instructions=None, name="c"):
    zeros = np.zeros(1, dtype=np.int64)
    return TextCollection(
        name=name,
        domain="",
        ignore_identical_ids=False,
        doc_ids=[f"d{row}" for row in range(len(documents))],
        doc_texts=list(documents),
        query_ids=[f"q{row}" for row in range(len(queries))],
        query_texts=list(queries),
        instructions=list(instructions or [""] * len(queries)),
        splits={"test": Qrels(zeros, zeros, zeros + 1)},
        dropped=Dropped(),
    )


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "s")


def embed(store, texts, large=None, small=None, config=CONFIG, **options):
    large, small = large or HashEncoder(8), small or HashEncoder(4, seed="s")
    stored, reports = embed_collection(
        store, texts, large=large, small=small, config=config, **options
    )
    return stored, reports, large, small


def encoded(reports):
    return {(r.what, r.encoder): (r.rows, r.encoded, r.cached) for r in reports}


def direct(encoder, role, texts, dtype="float16"):
    """The vectors in order, rounded as they are stored, without any store between."""
    out = np.empty((len(texts), encoder.spec.identity["dim"]), np.float32)
    for rows, vectors in encoder.encode(render(encoder.spec.templates[role], texts, None), role):
        out[rows] = vectors
    return out.astype(dtype).astype(np.float32)


def rows_of(store, encoder, role, keys):
    return store.encoder(encoder.spec.fingerprint(role)).vectors(keys, check=True)


def assert_stored(store, encoder, role, keys, texts, dtype="float16"):
    """Each key holds what the encoder gives for its text."""
    expected = direct(encoder, role, texts, dtype)
    np.testing.assert_array_equal(rows_of(store, encoder, role, keys), expected)


class Shuffled(HashEncoder):
    """Yields batches of several rows, longest text first, as a real encoder does."""

    def encode(self, texts, role):
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        vectors = dict(enumerate(v for _, v in super().encode(texts, role)))
        for start in range(0, len(order), 3):
            part = order[start : start + 3]
            yield part, np.concatenate([vectors[row] for row in part])


class Failing(HashEncoder):
    """Raises after some rows."""

    def __init__(self, dim, after, error, **options):
        super().__init__(dim, **options)
        self.after, self.error = after, error

    def encode(self, texts, role):
        for number, item in enumerate(super().encode(texts, role)):
            if number == self.after:
                raise self.error
            yield item


def test_each_side_gets_exactly_the_texts_it_needs(store):
    texts = collection([f"doc number {n}" for n in range(10)])
    config = EmbedConfig(align_documents=3)
    stored, reports, large, small = embed(store, texts, config=config)
    assert encoded(reports) == {
        ("documents", "hash-4"): (10, 10, 0),
        ("queries", "hash-4"): (2, 2, 0),
        ("queries", "hash-8"): (2, 2, 0),
        ("alignment documents", "hash-8"): (3, 3, 0),
    }
    sample = alignment_order(stored.doc_keys, config.align_seed)[:3]
    index = store.encoder(large.spec.fingerprint(Role.DOCUMENT)).index()
    present = np.flatnonzero(index.positions(stored.doc_keys) >= 0)
    assert present.tolist() == sorted(sample.tolist())
    sides = store.pairs(stored)
    prints = (
        large.spec.fingerprint(Role.QUERY),
        small.spec.fingerprint(Role.QUERY),
        small.spec.fingerprint(Role.DOCUMENT),
        large.spec.fingerprint(Role.DOCUMENT),
    )
    assert sides == [dict(zip(ROLES, prints, strict=True))]


def test_large_corpus_encodes_every_document_with_the_large_encoder(store):
    texts = collection([f"doc number {n}" for n in range(10)])
    config = EmbedConfig(align_documents=3)
    _, reports, large, _ = embed(store, texts, config=config, large_corpus=True)
    assert encoded(reports)["documents", "hash-8"] == (10, 10, 0)
    assert large.encoded == 12


def test_one_model_on_both_sides_encodes_once_and_is_reported_once_for_each_role(store):
    encoder = HashEncoder(8)
    texts = collection(["a b", "c d", "e f"])
    _, reports, _, _ = embed(store, texts, large=encoder, small=encoder)
    assert encoder.encoded == 5
    assert len(store.encoders()) == 2
    assert [(r.what, r.cached) for r in reports] == [("documents", 0), ("queries", 0)]


def test_a_bad_vector_in_the_alignment_sample_names_the_document_of_the_corpus(store):
    documents = [f"doc {n}" for n in range(19)] + ["bad doc"]
    sample = alignment_order(row_keys(Role.DOCUMENT, documents), EmbedConfig().align_seed)
    taken = sample.tolist().index(19) + 1
    assert taken < 20, "the sample must leave documents out, or places and rows agree"
    with pytest.raises(EncoderError, match="document 'd19'"):
        embed(
            store,
            collection(documents),
            large=Replacing(4, np.nan),
            small=HashEncoder(4, seed="s"),
            config=EmbedConfig(align_documents=taken),
        )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_key_holds_the_vector_of_its_own_text(store, dtype):
    rng = random.Random(0)
    documents = [
        " ".join(f"w{rng.randrange(50)}" for _ in range(rng.randrange(1, 9))) + f" {n}"
        for n in range(100)
    ]
    texts = collection(documents, [f"query {n} {'x ' * (n % 7)}" for n in range(30)])
    stored, _, large, small = embed(
        store, texts, Shuffled(8), Shuffled(4, seed="s"), EmbedConfig(dtype=dtype)
    )
    for encoder, role, keys, bodies in (
        (small, Role.DOCUMENT, stored.doc_keys, texts.doc_texts),
        (large, Role.DOCUMENT, stored.doc_keys, texts.doc_texts),
        (small, Role.QUERY, stored.query_keys, texts.query_texts),
        (large, Role.QUERY, stored.query_keys, texts.query_texts),
    ):
        assert_stored(store, encoder, role, keys, bodies, dtype)


def test_a_second_run_encodes_nothing_and_writes_no_segment(store, tmp_path):
    texts = collection(["a b", "c d", "a b"])
    embed(store, texts)
    before = sorted(path.name for path in tmp_path.rglob("*.h5"))
    _, reports, large, small = embed(store, texts)
    assert large.encoded == small.encoded == 0
    assert encoded(reports)["documents", "hash-4"] == (2, 0, 2)
    assert sorted(path.name for path in tmp_path.rglob("*.h5")) == before


def test_one_new_document_encodes_one_row(store):
    embed(store, collection(["a b", "c d"]))
    _, reports, _, small = embed(store, collection(["a b", "new one", "c d"]))
    assert small.encoded == 1
    assert encoded(reports)["documents", "hash-4"] == (3, 1, 2)


def test_a_text_that_two_collections_share_is_stored_once(store):
    embed(store, collection(["a b", "c d"], name="one"))
    _, _, _, small = embed(store, collection(["c d", "e f"], name="two"))
    assert small.encoded == 1
    folder = store.encoder(small.spec.fingerprint(Role.DOCUMENT))
    assert sum(len(segment.keys) for segment in folder.segments()) == 3


def test_a_text_that_repeats_within_a_collection_is_encoded_once(store):
    stored, _, _, small = embed(store, collection(["same", "other", "same"]))
    assert small.encoded == 2 + 2
    vectors = rows_of(store, small, Role.DOCUMENT, stored.doc_keys)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_a_new_query_template_encodes_only_that_encoders_queries_again(store):
    texts = collection(["a b", "c d"])
    embed(store, texts)
    prompted = HashEncoder(8, template="search: {text}")
    stored, _, _, small = embed(store, texts, large=prompted)
    assert (prompted.encoded, small.encoded) == (2, 0)
    wanted = HashEncoder(8), Role.QUERY, ["search: find one", "search: find two"]
    found = rows_of(store, prompted, Role.QUERY, stored.query_keys)
    np.testing.assert_array_equal(found, direct(*wanted))


def test_a_new_instruction_encodes_that_query_again_with_it(store):
    template = "{instruction}: {text}"
    embed(store, collection(["a"], instructions=["x", "x"]), HashEncoder(8, template=template))
    stored, _, large, small = embed(
        store, collection(["a"], instructions=["x", "y"]), HashEncoder(8, template=template)
    )
    assert (large.encoded, small.encoded) == (1, 1)
    wanted = HashEncoder(8), Role.QUERY, ["x: find one", "y: find two"]
    found = rows_of(store, large, Role.QUERY, stored.query_keys)
    np.testing.assert_array_equal(found, direct(*wanted))


def test_float32_after_float16_encodes_again_but_not_the_other_way_round(store):
    texts = collection(["a b", "c d"])
    embed(store, texts, config=EmbedConfig(dtype="float16"))
    stored, _, _, small = embed(store, texts, config=EmbedConfig(dtype="float32"))
    assert small.encoded == 4
    assert_stored(store, small, Role.DOCUMENT, stored.doc_keys, texts.doc_texts, "float32")
    _, _, _, third = embed(store, texts, config=EmbedConfig(dtype="float16"))
    assert third.encoded == 0


@pytest.mark.parametrize("error", [EncoderError("boom"), KeyboardInterrupt(), MemoryError()])
def test_rows_finished_before_an_error_are_kept_and_the_next_run_encodes_the_rest(store, error):
    texts = collection([f"doc {n}" for n in range(20)])
    failing = Failing(4, 7, error, seed="s")
    with pytest.raises(type(error)):
        embed(store, texts, small=failing)
    assert failing.encoded == 8
    stored, reports, _, small = embed(store, texts)
    assert encoded(reports)["documents", "hash-4"] == (20, 13, 7)
    assert_stored(store, small, Role.DOCUMENT, stored.doc_keys, texts.doc_texts)


def test_an_error_before_the_first_row_leaves_an_openable_store(store, tmp_path):
    texts = collection(["a b", "c d"])
    with pytest.raises(EncoderError, match="boom"):
        embed(store, texts, small=Failing(4, 0, EncoderError("boom"), seed="s"))
    assert Store.open(tmp_path / "s").encoders() == []
    assert embed(store, texts)[3].encoded == 4


class Replacing(HashEncoder):
    """Gives a chosen vector for texts with a marked word."""

    def __init__(self, dim, value, **options):
        super().__init__(dim, **options)
        self.value = value

    def encode(self, texts, role):
        for rows, vectors in super().encode(texts, role):
            if "bad" in texts[rows[0]]:
                vectors[:] = self.value
            yield rows, vectors


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"NaN or infinite values for document 'd5'"),
        (np.inf, r"NaN or infinite values for document 'd5'"),
        (0.0, r"zeros for document 'd5'"),
        (1e-12, r"too small for float16 for document 'd5'.*--dtype float32"),
        (1e6, r"too large for float16 for document 'd5'.*--dtype float32"),
    ],
)
def test_an_unusable_vector_names_its_text_and_is_not_stored(store, value, message):
    documents = [f"doc {n}" for n in range(10)]
    documents[5] = "bad doc"
    small = Replacing(4, value, seed="s")
    with pytest.raises(EncoderError, match=message):
        embed(store, collection(documents), small=small)
    index = store.encoder(small.spec.fingerprint(Role.DOCUMENT)).index()
    present = index.positions(row_keys(Role.DOCUMENT, documents)) >= 0
    assert np.flatnonzero(present).tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]


BAD = [f"doc {n}" if n % 3 else f"bad {n % 2}" for n in range(10)]


def test_all_unusable_texts_of_a_model_are_told_at_once(store):
    small = Replacing(4, 0.0, seed="s")
    with pytest.raises(EncoderError) as caught:
        embed(store, collection(BAD, ["find", "bad query"]), small=small)
    assert "zeros for document 'd0' (3 such texts):" in str(caught.value)
    for name in ("document 'd0'", "document 'd3'", "query 'q1'"):
        assert f"  {name}: a vector of zeros\n" in str(caught.value)
    assert "--skip-bad-rows leaves such texts out" in str(caught.value)
    # The other model, which may take hours, was not started.
    assert {one.spec.name for one in store.encoders()} == {small.spec.name}


def test_unusable_texts_are_left_out_where_that_is_asked_for(store):
    judged = Qrels(*np.array([[0, 0, 1, 1], [0, 1, 3, 4], [1, 1, 1, 1]]))
    texts = collection(BAD, ["find", "seek", "bad query"])._replace(splits={"test": judged})
    config = EmbedConfig(skip_bad_rows=True, align_documents=3)
    options = {"small": Replacing(4, np.nan, seed="s"), "config": config}
    stored, reports, large, small = embed(store, texts, **options)
    assert stored.doc_ids == ["d1", "d2", "d4", "d5", "d7", "d8"]
    assert stored.query_ids == ["q0", "q1"]
    assert [column.tolist() for column in stored.qrels] == [[0, 1], [0, 2], [1, 1]]
    assert [report.bad for report in reports[:2]] == [
        ("document 'd0': NaN or infinite values", "document 'd3': NaN or infinite values"),
        ("query 'q2': NaN or infinite values",),
    ]
    for encoder, role, keys in (
        (small, Role.DOCUMENT, stored.doc_keys),
        (small, Role.QUERY, stored.query_keys),
        (large, Role.QUERY, stored.query_keys),
        (
            large,
            Role.DOCUMENT,
            stored.doc_keys[alignment_order(stored.doc_keys, config.align_seed)[:3]],
        ),
    ):
        assert len(store.vectors(encoder.spec.fingerprint(role), keys)) == len(keys)
    again = embed(store, texts, **options)
    assert again[0].digest == stored.digest
    assert [report.encoded for report in again[1]] == [2, 1, 0, 0]


def test_leaving_everything_out_is_an_error(store):
    config = EmbedConfig(skip_bad_rows=True)
    with pytest.raises(EncoderError, match=r"zeros for document 'd0' \(2 such texts\)"):
        embed(store, collection(["bad", "bad 2"]), small=Replacing(4, 0.0, seed="s"), config=config)


def test_a_model_that_fails_on_everything_is_stopped_early(store):
    counted = Replacing(4, np.nan, seed="s")
    with pytest.raises(EncoderError, match=r"\(1,\d{3} such texts\)(.*\n)+  and 9\d\d more|and 1,"):
        embed(store, collection([f"bad {n}" for n in range(9000)]), small=counted)


def test_the_row_that_is_named_is_the_row_in_the_collection_not_in_the_group(store):
    embed(store, collection(["a", "b", "c"]), small=Replacing(4, np.nan, seed="s"))
    with pytest.raises(EncoderError, match="document 'd3'"):
        embed(store, collection(["c", "b", "new", "bad"]), small=Replacing(4, np.nan, seed="s"))


class Forgetful(HashEncoder):
    def encode(self, texts, role):
        items = list(super().encode(texts, role))
        yield from items[:-1]


class Misshapen(HashEncoder):
    def encode(self, texts, role):
        for rows, vectors in super().encode(texts, role):
            yield rows, np.repeat(vectors, 2, axis=0)


class Flat(HashEncoder):
    def encode(self, texts, role):
        for rows, vectors in super().encode(texts, role):
            yield rows, vectors[0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, "returned 2 vectors for 3 texts"),
        (Misshapen, r"returned shape \(2, 4\) for 1 texts"),
        (Flat, r"returned shape \(4,\) for 1 texts"),
    ],
)
def test_a_wrong_number_of_vectors_is_an_error(store, kind, message):
    with pytest.raises(EncoderError, match=message):
        embed(store, collection(["a", "b", "c"]), small=kind(4, seed="s"))
    stored, _, _, small = embed(store, collection(["a", "b", "c"]))
    assert_stored(store, small, Role.DOCUMENT, stored.doc_keys, ["a", "b", "c"])


def test_an_encoder_that_changes_its_dimension_is_refused(store):
    embed(store, collection(["a"]))
    liar = HashEncoder(6, seed="s")
    liar.spec = HashEncoder(4, seed="s").spec
    with pytest.raises(EncoderError, match="6 dimensions, but the store has 4"):
        embed(store, collection(["a", "b"]), small=liar)


def test_progress_ends_at_the_number_of_missing_rows(store):
    told = []
    embed(store, collection(["a", "b", "c"]), progress=lambda *args: told.append(args))
    assert told[0] == ("loading hash-4", 0, 0)
    assert told[1:5] == [("documents", n, 3) for n in range(4)]
    told.clear()
    embed(store, collection(["a", "b", "c"]), progress=lambda *args: told.append(args))
    assert told == []


def test_many_groups_are_committed_one_by_one_and_merged_at_the_end(store, monkeypatch):
    commits = []
    original = SegmentWriter.commit

    def spy(self, keys, vectors):
        commits.append(len(keys))
        return original(self, keys, vectors)

    monkeypatch.setattr(SegmentWriter, "commit", spy)
    documents = [f"d{n}" for n in range(2000)]
    config = EmbedConfig(seal_seconds=1e-9, align_documents=1)
    stored, _, _, small = embed(store, collection(documents), config=config)
    assert commits[:8] == [256] * 7 + [208]
    folder = store.encoder(small.spec.fingerprint(Role.DOCUMENT))
    assert len(folder.segment_paths()) == 1
    expected = direct(small, Role.DOCUMENT, documents)
    np.testing.assert_array_equal(folder.vectors(stored.doc_keys, check=True), expected)


# Disks that fail


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "Permission denied")]
)
def test_a_disk_that_refuses_keeps_what_was_committed(store, tmp_path, monkeypatch, number, advice):
    texts = collection([f"doc {n}" for n in range(6)])
    embed(store, collection(texts.doc_texts[:2]))

    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(PlainWriter, "write", refuse)
        with pytest.raises(StoreError, match=advice):
            embed(store, texts)
    assert not list(tmp_path.rglob(f"{files.TEMPORARY_PREFIX}*"))
    assert encoded(embed(store, texts)[1])["documents", "hash-4"] == (6, 4, 2)


def test_a_file_size_limit_met_in_the_middle_of_a_segment_is_a_store_error(store, tmp_path):
    resource = pytest.importorskip("resource")
    texts = collection([f"doc {n}" for n in range(300)])
    large, small = HashEncoder(8), HashEncoder(512, seed="s")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreError, match="File too large"):
            embed(store, texts, large, small)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob(f"{files.TEMPORARY_PREFIX}*"))
    assert encoded(embed(store, texts, large, small)[1])["documents", "hash-512"] == (300, 300, 0)


# Processes that die, and processes side by side

WORKER = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from test_embed import big_collection, embed
from era_cache.encode.config import EmbedConfig
from hash_encoder import HashEncoder
from era_cache.store.store import Store
class Slow(HashEncoder):
    def encode(self, texts, role):
        for row, item in enumerate(super().encode(texts, role)):
            if row == 0:
                print("encoding", flush=True)
            yield item
config = EmbedConfig(seal_seconds=1e-9, align_sample="random")
print("ready", flush=True)
sys.stdin.readline()
embed(Store.create(Path({store!r})), big_collection(), HashEncoder(8), Slow(4, seed="s"), config)
print("done", flush=True)
"""


def big_collection():
    return collection([f"document {n}" for n in range(1500)], [f"query {n}" for n in range(300)])


def start_worker(path):
    source = WORKER.format(path=[str(Path(__file__).parent), *sys.path], store=str(path))
    worker = subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout.readline() == "ready\n"
    return worker


def release(worker):
    worker.stdin.write("\n")
    worker.stdin.flush()


def check_all_stored_rows(store):
    """Every row that any segment holds is the right one; returns how many there are."""
    texts, count = big_collection(), 0
    bodies = {Role.DOCUMENT: texts.doc_texts, Role.QUERY: texts.query_texts}
    for folder in store.encoders():
        role = folder.spec.role
        encoder = HashEncoder(folder.spec.dim, seed="s" if folder.spec.dim == 4 else "")
        keys = row_keys(role, bodies[role])
        index = folder.index(check=True)
        present = np.flatnonzero(index.positions(keys) >= 0)
        stored = [segment.keys for segment in index.segments] or [np.empty((0, 16), np.uint8)]
        assert len(np.unique(np.concatenate(stored), axis=0)) == len(present)
        wanted = [bodies[role][row] for row in present]
        expected = direct(encoder, role, wanted)
        np.testing.assert_array_equal(folder.vectors(keys[present], index=index), expected)
        count += len(present)
    return count


def test_a_store_survives_sigkill_at_any_moment(tmp_path):
    path = tmp_path / "s"
    rng = random.Random(1)
    workers = [start_worker(path) for _ in range(2)]
    for number in range(8):
        worker = workers.pop(0)
        release(worker)
        # Late ones die in the middle of encoding, early ones while making the store.
        if number % 4:
            worker.stdout.readline()
        time.sleep(rng.uniform(0, 0.03 if number % 4 else 0.01))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdin.close()
        worker.stdout.close()
        if number < 6:
            workers.append(start_worker(path))
        if (path / "store.json").exists():
            check_all_stored_rows(Store.open(path))
    store = Store.create(path)
    before = check_all_stored_rows(store)
    _, reports, _, _ = embed(store, big_collection())
    assert sum(report.encoded for report in reports) + before == 2 * 300 + 1500 + 1000
    assert check_all_stored_rows(store) == 2 * 300 + 1500 + 1000


def test_a_killed_writers_temporary_file_is_ignored_then_removed(store):
    texts = collection(["a", "b"])
    _, _, _, small = embed(store, texts)
    folder = store.encoder(small.spec.fingerprint(Role.DOCUMENT)).folder / "segments"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own = files.temporary_name(".h5")
    left = [
        folder / own.replace(f"-{os.getpid()}-", f"-{dead.pid}-"),
        store.path / "collections" / own.replace(f"-{os.getpid()}-", f"-{dead.pid}-"),
    ]
    alive = folder / own
    for path in (*left, alive):
        path.write_bytes(b"half a segment")
    stored, _, _, again = embed(store, texts)
    assert again.encoded == 0
    assert len(rows_of(store, small, Role.DOCUMENT, stored.doc_keys)) == 2
    embed(store, collection(["a", "b", "c"]))
    assert [path.exists() for path in left] == [False, False]
    assert alive.exists()


def test_two_processes_embed_into_one_store_at_once(tmp_path):
    workers = [start_worker(tmp_path / "s") for _ in range(2)]
    for worker in workers:
        release(worker)
    for worker in workers:
        assert worker.communicate()[0].endswith("done\n")
        assert worker.returncode == 0
    store = Store.open(tmp_path / "s")
    assert check_all_stored_rows(store) == 2 * 300 + 1500 + 1000
    assert len(store.encoders()) == 4
    assert not list(tmp_path.rglob(f"{files.TEMPORARY_PREFIX}*"))


def test_a_reader_never_fails_while_a_writer_commits_and_merges(store):
    embed(store, collection(["a", "b"]))
    texts, failures, stop = collection(["a", "b"]), [], threading.Event()
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    small = HashEncoder(4, seed="s")
    expected = direct(small, Role.DOCUMENT, ["a", "b"])

    def read():
        while not stop.is_set():
            try:
                np.testing.assert_array_equal(rows_of(store, small, Role.DOCUMENT, keys), expected)
            except (EraError, OSError, AssertionError) as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for start in range(0, 2400, 800):
            documents = [f"d{n}" for n in range(start, start + 1600)]
            config = EmbedConfig(seal_seconds=1e-9, align_documents=1)
            embed(store, collection(["a", "b", *documents]), config=config)
    finally:
        stop.set()
        reader.join()
    assert failures == []


def test_provenance_is_kept_with_the_rows(store):
    _, _, _, small = embed(store, collection(["a"]))
    (segment,) = store.encoder(small.spec.fingerprint(Role.DOCUMENT)).segments()
    note = json.loads(segment.provenance)
    assert note["device"] == "cpu"
    assert note["precision"] == "float64"
    assert note["created"].endswith("+00:00")
