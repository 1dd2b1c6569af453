"""Groups are read and committed beside the encoding of others; nothing that was encoded is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import HashEncoder
from tiny_model import open_model

from era_cache.collection.keys import row_keys
from era_cache.collection.records import RoleTexts
from era_cache.encode.config import EmbedConfig
from era_cache.encode.encoder import in_order
from era_cache.encode.job import Job
from era_cache.encode.parts import Part
from era_cache.errors import StoreError
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import FloatArray, IntArray, Role

TEXTS = [f"text {number}" for number in range(12)]
GROUPS = np.arange(12).reshape(3, 4)
KEYS = row_keys(Role.DOCUMENT, TEXTS)


class Watched(HashEncoder):
    """Calls something before each text."""

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(8)
        self._before = before

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        for row, text in enumerate(texts):
            self._before(text)
            for _, vectors in super().encode([text], role):
                yield [row], vectors


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def job_of(store: Store, encoder: HashEncoder) -> Job:
    texts = RoleTexts([f"d{number}" for number in range(12)], TEXTS, None)
    return Job(store, Part("documents", encoder, Role.DOCUMENT, KEYS, texts), EmbedConfig())


def stored(store: Store, encoder: HashEncoder) -> list[int]:
    found = store.encoder(encoder.spec.fingerprint(Role.DOCUMENT)).index().positions(KEYS)
    return np.flatnonzero(found >= 0).tolist()


def tell(_: int) -> None:
    pass


def run(store: Store, encoder: HashEncoder, groups: Sequence[IntArray], done: list[int]) -> None:
    with job_of(store, encoder) as job:
        for group in groups:
            job.encode_group(group, tell)
            done.append(len(group))


def test_the_next_group_is_encoded_while_one_is_committed(store, monkeypatch) -> None:
    begun = threading.Event()
    commit = SegmentWriter.commit

    def slow(*given: object) -> object:
        assert begun.wait(20), "the next group waits for the commit"
        return commit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentWriter, "commit", slow)
    encoder = Watched(lambda text: begun.set() if text == TEXTS[4] else None)
    run(store, encoder, GROUPS[:2], [])
    assert stored(store, encoder) == list(range(8))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_what_was_encoded_before_an_error_is_stored(store, monkeypatch, kind) -> None:
    def stop(text: str) -> None:
        if text == TEXTS[6]:
            raise kind

    commit = SegmentWriter.commit

    def slow(*given: object) -> object:
        threading.Event().wait(0.05)
        return commit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentWriter, "commit", slow)
    encoder = Watched(stop)
    with pytest.raises(kind):
        run(store, encoder, GROUPS, [])
    assert stored(store, encoder) == list(range(6))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_commit_that_fails_is_an_error_at_the_next_one_or_in_the_end(
    store, monkeypatch, groups
) -> None:
    def full(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(SegmentWriter, "commit", full)
    done: list[int] = []
    with pytest.raises(StoreError, match="disk full"):
        run(store, Watched(), GROUPS[:groups], done)
    assert done == [4], "no third group is encoded for nothing"


def test_settled_is_stored(store) -> None:
    encoder = Watched()
    job = job_of(store, encoder)
    job.encode_group(GROUPS[0], tell)
    job.settle()
    assert stored(store, encoder) == [0, 1, 2, 3]
    job.finish()


class Measuring(Watched):
    """Prepares texts ahead; texts that it did not prepare it does not encode."""

    def __init__(
        self,
        before: Callable[[str], None] = lambda _: None,
        measuring: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        super().__init__(before)
        self._measuring = measuring
        self.prepared: list[Sequence[str]] = []

    def measured(self, texts: Sequence[str], role: Role) -> Sequence[str]:
        assert role is Role.DOCUMENT
        self._measuring(texts)
        self.prepared.append(tuple(texts))
        return self.prepared[-1]

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        assert any(texts is one for one in self.prepared)
        return super().encode(texts, role)


def in_groups(store: Store, encoder: HashEncoder, size: int, seen: list[int]) -> None:
    with job_of(store, encoder) as job:
        job._group_rows = size  # else learnt, and never so few
        job._learn = lambda *_: None  # type: ignore[method-assign]
        job.run(np.arange(12), seen.append)
        job.finish()


def test_the_next_group_is_measured_while_one_is_encoded(store) -> None:
    measured = threading.Event()
    late: list[str] = []

    def first(text: str) -> None:
        if text == TEXTS[0] and not measured.wait(20):
            late.append(text)

    encoder = Measuring(first, lambda texts: measured.set() if texts[0] == TEXTS[4] else None)
    told: list[int] = []
    in_groups(store, encoder, 4, told)
    assert not late, "the next group is not measured before this one is encoded"
    assert [one[0] for one in encoder.prepared] == [TEXTS[0], TEXTS[4], TEXTS[8]]
    assert told == list(range(1, 13))
    assert stored(store, encoder) == list(range(12))


def test_an_error_of_measuring_comes_after_what_precedes_it_is_stored(store) -> None:
    def fail(texts: Sequence[str]) -> None:
        if TEXTS[8] in texts:
            raise RuntimeError("no such token")

    encoder = Measuring(measuring=fail)
    with pytest.raises(RuntimeError, match="no such token"):
        in_groups(store, encoder, 4, [])
    assert stored(store, encoder) == list(range(8))
    assert not [one for one in threading.enumerate() if one.name.startswith(("ahead", "commit"))]


def test_an_error_of_encoding_ends_the_reading_ahead(store) -> None:
    def stop(text: str) -> None:
        if text == TEXTS[5]:
            raise KeyboardInterrupt

    encoder = Measuring(stop)
    with pytest.raises(KeyboardInterrupt):
        in_groups(store, encoder, 2, [])
    assert stored(store, encoder) == list(range(5))
    assert not [one for one in threading.enumerate() if one.name.startswith(("ahead", "commit"))]


def test_groups_grow_with_the_speed_and_never_by_more_than_four(store) -> None:
    with job_of(store, Watched()) as job:
        sizes = [len(group) for group in job._groups(np.arange(5000))]
        assert sizes == [256] * 19 + [136]
        grown = []
        for _ in range(6):
            job._learn(job._group_rows, 1e-9)
            grown.append(job._group_rows)
        assert grown == [1024, 4096, 16384, 65536, 65536, 65536]
        job._learn(65536, 1e9)
        assert job._group_rows == 256


def test_a_real_model_gives_the_same_vectors_where_texts_are_measured_beside(store, models) -> None:
    """Its tokenizer is set anew by every batch, so that the counting thread has one of its own."""
    rng = np.random.default_rng(0)
    words = np.array(["wing", "lift", "drag", "supersonic", "boundary", "layer", "of", "a"])
    texts = [f"{n} " + " ".join(rng.choice(words, rng.integers(1, 12))) for n in range(900)]
    keys = row_keys(Role.DOCUMENT, texts)
    encoder = open_model(models["large"], max_seq_length=8, batch_tokens=256)
    asked = RoleTexts([f"d{number}" for number in range(900)], texts, None)
    part = Part("documents", encoder, Role.DOCUMENT, keys, asked)
    with Job(store, part, EmbedConfig(dtype="float32", seal_seconds=1e-9)) as job:
        job.run(np.arange(900), tell)
        job.finish()
    found = store.encoder(encoder.spec.fingerprint(Role.DOCUMENT)).vectors(keys)
    alone = open_model(models["large"], max_seq_length=8, batch_tokens=256)
    np.testing.assert_allclose(found, in_order(alone, texts, Role.DOCUMENT), atol=2e-6)
    assert encoder.truncated == alone.truncated > 0
