"""What inspection counts, by hand."""

from __future__ import annotations

import numpy as np

from era_cache.collection.inspection import inspect_collection
from era_cache.collection.records import Dropped, TextCollection
from era_cache.report.length_chart import draw_lengths, sparkline
from era_cache.types import Qrels


def qrels(*triples: tuple[int, int, int]) -> Qrels:
    return Qrels(*np.array(triples, dtype=np.int64).reshape(-1, 3).T)


TEXTS = TextCollection(
    name="made",
    domain="web",
    ignore_identical_ids=False,
    doc_ids=["d0", "d1", "d2", "q2"],
    doc_texts=[
        "How do I SORT\n a list? Use sorted().",
        "two words",
        "Two  WORDS",
        "third question",
    ],
    query_ids=["q0", "q1", "q2", "q3", "q4"],
    query_texts=["how do I sort a list?", "two words", "third question", "two words", "nothing"],
    instructions=["Find.", "Find.", "", "", ""],
    splits={
        "train": qrels((0, 0, 2), (0, 1, 0), (1, 1, 1), (1, 2, 1)),
        "test": qrels((2, 3, 1), (3, 0, 1), (4, 0, 0)),
    },
    dropped=Dropped(),
)


def test_every_number_by_hand() -> None:
    seen = inspect_collection(TEXTS)
    assert (seen.documents, seen.queries, seen.instructions, seen.relevant) == (4, 5, 1, 4)
    assert seen.equal_documents == 1  # d2 is d1 but for case and blanks
    assert seen.equal_queries == 0  # q1 and q3 differ in their instruction
    assert seen.query_documents == 3  # q1, q2, q3
    assert seen.own_ids == 1  # q2
    assert seen.inside == 1  # q0 in d0; q1 and q2 are their documents
    train, test = seen.splits
    assert (train.queries, train.judgements, train.unanswered, train.shared) == (2, 4, 0, 1)
    assert (train.positives, train.most_positives) == (1.5, 2)
    assert train.grades == {0: 1, 1: 2, 2: 1}
    assert (test.queries, test.unanswered, test.shared) == (3, 1, 1)
    lengths = {one.what: one.words.tolist() for one in seen.lengths}
    assert lengths == {
        "documents": [8, 2, 2, 2],
        "queries": [6, 2, 2, 2, 1],
        "instructions": [1, 1],
    }
    assert seen.lengths[0].quantiles() == {"median": 2, "95 %": 7, "longest": 8}
    assert len(seen.remarks()) == 5


def test_a_plain_collection_has_no_remarks() -> None:
    quiet = TEXTS._replace(
        query_texts=["a", "b", "c", "d", "e"], doc_texts=["v", "w", "x", "y"], splits={}
    )
    seen = inspect_collection(quiet)
    assert (seen.remarks(), seen.splits, seen.relevant) == ([], (), 0)


def test_a_role_that_is_missing() -> None:
    alone = TEXTS._replace(query_ids=[], query_texts=[], instructions=[], splits={})
    assert inspect_collection(alone).lengths[1].quantiles()["longest"] == 0


def test_a_sparkline_shows_the_shape() -> None:
    assert sparkline(np.array([], dtype=np.int64)) == ""
    assert sparkline(np.array([3, 3, 3])) == "█"
    shape = sparkline(np.array([1] * 50 + [100]))
    assert (shape[0], shape[-1], len(shape)) == ("█", "▂", 2)
    many = sparkline(np.random.default_rng(0).integers(1, 1000, 5000))
    assert len(many) == 24


def test_lengths_are_drawn_with_words_for_those_who_cannot_see() -> None:
    drawn = draw_lengths({"documents": np.array([1, 5, 900]), "queries": np.array([], np.int64)})
    assert drawn.startswith("<svg")
    assert "documents: median 5" in drawn
    assert "queries" not in drawn
    assert draw_lengths({"documents": np.array([0, 0])}).startswith("<svg")
