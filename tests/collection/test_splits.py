"""Splits: sizes, nesting, and that equal texts are never parted."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.collection.config import SplitConfig
from era_cache.collection.keys import row_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.errors import FitError, InputError
from era_cache.types import Qrels, Role


def _collection(
    texts: Sequence[str],
    *,
    grades: Sequence[int] | None = None,
    splits: Sequence[str] = ("test",),
    split_of: Sequence[int] | None = None,
    instructions: Sequence[str] | None = None,
) -> Collection:
    """One judgement for each query; ``split_of`` is the number of its split."""
    count = len(texts)
    rows = np.arange(count, dtype=np.int64)
    return Collection(
        name="made",
        domain="",
        ignore_identical_ids=False,
        doc_ids=["d"],
        doc_keys=row_keys(Role.DOCUMENT, ["d"]),
        query_ids=[f"q{row}" for row in range(count)],
        query_keys=row_keys(Role.QUERY, texts, instructions),
        query_text_keys=row_keys(Role.QUERY, texts),
        qrels=Qrels(
            rows,
            np.zeros(count, dtype=np.int64),
            np.ones(count, np.int64) if grades is None else np.array(grades, dtype=np.int64),
        ),
        qrels_split=np.zeros(count, np.uint8) if split_of is None else np.array(split_of, np.uint8),
        splits=list(splits),
        digest="0" * 64,
        created="",
    )


def _distinct(count: int) -> Collection:
    return _collection([f"text {row}" for row in range(count)])


@pytest.mark.parametrize(
    ("labels", "train"), [(0.05, 5), (0.1, 10), (0.2, 20), (0.4, 40)], ids=lambda v: str(v)
)
def test_parts_have_the_sizes_of_the_paper(labels, train) -> None:
    split = make_split(_distinct(100), SplitConfig(labels=labels))
    assert [len(part) for part in split[:3]] == [train, 10, 50]


def test_sizes_are_rounded_down() -> None:
    split = make_split(_distinct(57), SplitConfig(labels=0.2))
    assert [len(part) for part in split[:3]] == [11, 5, 28]


def test_smaller_shares_lie_within_larger_ones_and_test_stays() -> None:
    shares = [make_split(_distinct(200), SplitConfig(labels=s)) for s in (0.05, 0.1, 0.2, 0.4)]
    for smaller, larger in itertools.pairwise(shares):
        assert set(smaller.train.tolist()) < set(larger.train.tolist())
        assert smaller.validation.tolist() == larger.validation.tolist()
        assert smaller.test.tolist() == larger.test.tolist()


def test_parts_are_sorted_disjoint_and_shuffled() -> None:
    split = make_split(_distinct(100), SplitConfig(labels=0.4))
    rows = np.concatenate(split[:3])
    assert sorted(rows.tolist()) == list(range(100))
    for part in split[:3]:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert split.test.tolist() != list(range(50, 100))


def test_another_seed_gives_another_test_part_and_the_same_seed_the_same() -> None:
    one, two = (make_split(_distinct(100), SplitConfig(seed=seed)) for seed in (1, 2))
    again = make_split(_distinct(100), SplitConfig(seed=1))
    assert one.test.tolist() != two.test.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(one[:3], again[:3], strict=True))


def test_queries_without_a_positive_judgement_are_in_no_part() -> None:
    grades = [1, 0, 2, -1] * 25
    split = make_split(
        _collection([f"text {r}" for r in range(100)], grades=grades), SplitConfig(labels=0.4)
    )
    used = np.concatenate(split[:3])
    assert len(used) == 50
    assert (used % 2 == 0).all()


GROUPS = st.lists(st.integers(0, 12), min_size=12, max_size=80)


def _no_text_is_in_two_parts(split: Split, groups: list[int]) -> None:
    train, validation, test = ({groups[row] for row in part.tolist()} for part in split[:3])
    assert not train & validation
    assert not train & test
    assert not validation & test


@given(GROUPS, st.sampled_from([0.1, 0.2, 0.4]), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_equal_texts_are_in_one_part_and_test_does_not_depend_on_the_share(
    groups, labels, seed
) -> None:
    collection = _collection([f"text {group}" for group in groups])
    try:
        split = make_split(collection, SplitConfig(labels=labels, seed=seed))
        largest = make_split(collection, SplitConfig(labels=0.4, seed=seed))
    except FitError:
        return
    _no_text_is_in_two_parts(split, groups)
    assert split.test.tolist() == largest.test.tolist()
    assert split.validation.tolist() == largest.validation.tolist()
    assert set(split.train.tolist()) <= set(largest.train.tolist())
    # Where a cut moves, the later part grows: test never shrinks.
    assert len(split.test) >= len(groups) // 2


@given(
    GROUPS,
    st.lists(st.integers(0, 2), min_size=80, max_size=80),
    st.sampled_from([0.3, 1.0]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_equal_texts_are_in_one_part_by_the_source_rule(groups, numbers, labels, has_dev) -> None:
    numbers = [n if has_dev or n != 1 else 0 for n in numbers[: len(groups)]]
    collection = _collection(
        [f"text {group}" for group in groups], splits=("train", "dev", "test"), split_of=numbers
    )
    try:
        split = make_split(collection, SplitConfig(rule="source", labels=labels))
    except FitError:
        return
    _no_text_is_in_two_parts(split, groups)
    assert split.test.tolist() == [row for row, n in enumerate(numbers) if n == 2]
    assert all(numbers[row] == 0 for row in split.train.tolist())


def test_the_same_text_under_another_instruction_moves_along() -> None:
    groups = [row // 4 for row in range(40)]
    instructions = [f"instruction {row}" for row in range(40)]
    collection = _collection([f"text {group}" for group in groups], instructions=instructions)
    for seed in range(5):
        split = make_split(collection, SplitConfig(labels=0.4, seed=seed))
        _no_text_is_in_two_parts(split, groups)


def test_source_rule_takes_the_parts_of_the_collection() -> None:
    collection = _collection(
        [f"text {r}" for r in range(40)],
        splits=("dev", "test", "train"),
        split_of=[2] * 20 + [0] * 8 + [1] * 12,
    )
    split = make_split(collection, SplitConfig(rule="source", labels=1.0))
    assert split.train.tolist() == list(range(20))
    assert split.validation.tolist() == list(range(20, 28))
    assert split.test.tolist() == list(range(28, 40))
    half = make_split(collection, SplitConfig(rule="source", labels=0.5))
    assert len(half.train) == 10
    assert set(half.train.tolist()) < set(range(20))
    assert half.validation.tolist() == split.validation.tolist()


def test_source_rule_without_dev_takes_a_tenth_of_train_for_validation() -> None:
    collection = _collection(
        [f"text {r}" for r in range(60)], splits=("train", "test"), split_of=[0] * 40 + [1] * 20
    )
    split = make_split(collection, SplitConfig(rule="source", labels=1.0))
    assert [len(part) for part in split[:3]] == [36, 4, 20]
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(40))


def test_source_rule_refuses_a_collection_with_a_test_split_only() -> None:
    with pytest.raises(FitError, match=r"lack a train or a test split.*--split paper"):
        make_split(_distinct(40), SplitConfig(rule="source"))


@pytest.mark.parametrize("labels", [-0.1, 1.5])
def test_impossible_shares_are_refused(labels) -> None:
    with pytest.raises(InputError, match="Share of labels"):
        make_split(_distinct(40), SplitConfig(labels=labels))


def test_a_share_that_would_reach_into_validation_is_refused() -> None:
    make_split(_distinct(40), SplitConfig(labels=0.4))
    with pytest.raises(InputError, match=r"Share of labels 0\.45: at most 40%"):
        make_split(_distinct(40), SplitConfig(labels=0.45))


@pytest.mark.parametrize("count", [10, 37, 100])
@pytest.mark.parametrize("labels", [0.05, 0.1, 0.4])
def test_the_published_codes_own_split(count, labels) -> None:
    """Its lines, over ids in the order of the file; equal texts may be parted."""
    collection = _collection(["same", *(f"text {row}" for row in range(1, count - 1)), "same"])
    ids = list(collection.query_ids)
    random.Random(7).shuffle(ids)
    test = max(1, int(count * (1 - 0.5)))
    validation = min(max(1, int(count * (1 - 0.5 - 0.1))), test)
    train = max(1, min(int(count * labels), validation))
    split = make_split(collection, SplitConfig("paper-exact", seed=7, labels=labels))
    named = [{collection.query_ids[row] for row in rows} for rows in split[:3]]
    assert named == [set(ids[:train]), set(ids[validation:test]), set(ids[test:])]
    with pytest.raises(InputError, match="at most 40%"):
        make_split(collection, SplitConfig("paper-exact", labels=0.5))


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(InputError, match="'random': expected paper, paper-exact or source"):
        make_split(_distinct(40), SplitConfig(rule="random"))


def test_too_few_queries_are_refused_with_what_is_missing() -> None:
    with pytest.raises(FitError, match=r"no validation queries \(9 queries"):
        make_split(_distinct(9), SplitConfig())
    with pytest.raises(FitError, match="no training query at 5%"):
        make_split(_distinct(12), SplitConfig(labels=0.05))


def test_one_text_for_all_queries_cannot_be_split() -> None:
    with pytest.raises(FitError, match="no validation queries"):
        make_split(_collection(["same"] * 40), SplitConfig())


def test_at_no_labels_all_but_the_test_queries_are_unlabelled() -> None:
    collection = _collection([f"text {row % 90}" for row in range(100)])
    some = make_split(collection, SplitConfig(labels=0.2))
    none = make_split(collection, SplitConfig(labels=0.0))
    np.testing.assert_array_equal(none.test, some.test)
    assert (len(none.train), len(none.validation)) == (0, 0)
    tested = {int(row) % 90 for row in none.test}  # ten texts are there twice
    expected = [row for row in range(100) if row % 90 not in tested]
    assert none.unlabelled.tolist() == expected
    used = set(some.train.tolist()) | set(some.validation.tolist())
    assert some.unlabelled.tolist() == [row for row in expected if row not in used]


def test_a_collection_without_judgements_is_split_at_no_labels_only() -> None:
    collection = _collection([f"text {row}" for row in range(12)], grades=[0] * 12)
    with pytest.raises(FitError, match=r"no query has a positive judgement.*--labels 0"):
        make_split(collection, SplitConfig())
    for rule in ("paper", "source"):
        with pytest.raises(FitError) if rule == "source" else nullcontext():
            split = make_split(collection, SplitConfig(rule=rule, labels=0.0))
            assert len(split.test) == len(split.train) == 0
            assert split.unlabelled.tolist() == list(range(12))


def test_digest_of_the_test_queries_tells_splits_apart() -> None:
    collection = _distinct(100)
    digests = {
        make_split(collection, SplitConfig(seed=seed, labels=labels)).test_digest(collection)
        for seed in (1, 2)
        for labels in (0.1, 0.4)
    }
    assert len(digests) == 2


def test_the_time_of_a_split_grows_with_the_queries_only() -> None:
    count = 100_000
    parts = [0] * (count // 2) + [1] * (count // 4) + [2] * (count // 4)
    collection = _collection(
        [str(row) for row in range(count)], splits=("train", "dev", "test"), split_of=parts
    )
    start = time.monotonic()
    split = make_split(collection, SplitConfig(rule="source"))
    assert time.monotonic() - start < 10  # a set made anew for each query takes minutes
    assert [len(part) for part in split[:3]] == [count // 10, count // 4, count // 4]


def test_source_rule_without_labels_needs_a_test_split_only() -> None:
    split = make_split(_distinct(40), SplitConfig(rule="source", labels=0.0))
    assert [len(part) for part in split[:2]] == [0, 0]
    assert split.test.tolist() == list(range(40))
    assert split.config == SplitConfig(rule="source", labels=0.0)


def test_source_rule_takes_one_query_where_a_share_is_less_than_one() -> None:
    collection = _collection(
        [f"text {r}" for r in range(9)], splits=("train", "test"), split_of=[0] * 5 + [1] * 4
    )
    split = make_split(collection, SplitConfig(rule="source", labels=0.01))
    assert [len(part) for part in split[:3]] == [1, 1, 4]
    assert split.config.rule == "source"


@pytest.mark.parametrize("rule", ["paper", "paper-exact"])
def test_an_unjudged_query_with_the_words_of_a_test_query_is_in_no_part(rule) -> None:
    """What is learned from it without labels would be learned from the test query."""
    texts = [f"text {row}" for row in range(40)]
    collection = _collection([*texts, *texts], grades=[1] * 40 + [0] * 40)
    split = make_split(collection, SplitConfig(rule))
    tested = set(split.test.tolist())
    used = tested | set(split.train.tolist()) | set(split.validation.tolist())
    left = [row for row in range(80) if row not in used and row % 40 not in tested]
    assert split.unlabelled.tolist() == left
    assert len(left) == 8 + 20  # judged ones that no part takes; equals of the 20 that do not test


@pytest.mark.parametrize("rule", ["paper", "paper-exact", "source"])
def test_at_no_labels_nothing_trains_or_chooses_by_any_rule(rule) -> None:
    parts = [0] * 20 + [1] * 10 + [2] * 10
    texts = [f"text {row}" for row in range(40)]
    collection = _collection(texts, splits=("train", "dev", "test"), split_of=parts)
    split = make_split(collection, SplitConfig(rule, labels=0.0))
    assert (len(split.train), len(split.validation)) == (0, 0)
    assert len(split.test) + len(split.unlabelled) == 40
    assert split.config == SplitConfig(rule, labels=0.0)


def test_the_published_codes_split_of_very_few_queries() -> None:
    assert len(make_split(_distinct(3), SplitConfig("paper-exact", labels=0.0)).test) == 2
    split = make_split(_distinct(4), SplitConfig("paper-exact"))
    assert [len(part) for part in split[:3]] == [1, 1, 2]
    assert split.config == SplitConfig("paper-exact")


def test_a_part_that_is_missing_is_named() -> None:
    with pytest.raises(FitError, match=r"no test queries \(40 queries"):
        make_split(_distinct(40), SplitConfig(test=0.01))
