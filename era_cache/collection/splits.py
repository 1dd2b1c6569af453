"""Splits of a collection's queries into training, validation and test.

In: a stored collection and a rule. Out: row numbers. A split is made before any vector is read,
and everything that fits an adapter is given the training and validation rows only.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

from era_cache.collection.config import SplitConfig
from era_cache.collection.keys import key_words
from era_cache.collection.records import Collection
from era_cache.disk.json_files import json_digest
from era_cache.errors import FitError, InputError
from era_cache.types import IntArray

__all__ = ["Split", "make_split"]

_SOURCE_NAMES = {
    "train": ("train",),
    "validation": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}


class Split(NamedTuple):
    """Query rows of each part (int64, sorted), and the configuration they came from.

    ``unlabelled`` are the other queries of the collection, judged or not, less those whose text is
    a test query's: fitting may look at them, but reads no judgement of them.
    """

    train: IntArray
    validation: IntArray
    test: IntArray
    config: SplitConfig
    unlabelled: IntArray = np.zeros(0, dtype=np.int64)

    def test_digest(self, collection: Collection) -> str:
        """Digest of the test queries' ids: evaluation checks that it has the same ones."""
        return json_digest([collection.query_ids[row] for row in self.test])


def make_split(collection: Collection, config: SplitConfig) -> Split:
    """Split the queries that have a positive judgement.

    Rule ``paper`` (arXiv 2604.03403): shuffle; the last half is test, the tenth before it
    validation, and training takes its share from the front, so that test and validation stay the
    same whatever the share. Queries with the same text and instruction move as one: where a cut
    would part them, it moves so that the earlier part loses them.

    Rule ``paper-exact``: the same without moving cuts, shuffled as the published code does (by
    Python's generator), for its own splits of data in its order.

    Rule ``source``: the collection's own train, dev and test; without a dev, a tenth of all is
    taken from train. Training takes the share ``labels`` of what is left, after a shuffle.

    At a share of 0 no label trains or chooses: all but the test queries are unlabelled, and a
    collection without judgements has nothing but these.

    Raises:
        InputError: an unknown rule or an impossible share.
        FitError: too few judged queries for any share but 0, or no test split in the source.
    """
    config.checked()
    judged = np.unique(collection.qrels.query_rows[collection.qrels.relevance >= 1])
    shuffled, groups = _shuffle_groups(collection, judged, config.seed)
    if config.rule == "paper":
        split = _paper(shuffled, groups, config)
    elif config.rule == "paper-exact":
        split = _paper_exact(judged, config)
    elif config.rule == "source":
        split = _source(collection, shuffled, groups, config)
    else:
        raise InputError(f"Split rule '{config.rule}': expected paper, paper-exact or source.")
    if not config.labels:
        none = split.train[:0]
        return _with_unlabelled(collection, split._replace(train=none, validation=none))
    if not len(judged):
        raise FitError(
            f"{collection.name}: no query has a positive judgement. --labels 0 fits without any; "
            "judgements can be added later without encoding anything again."
        )
    for name, rows in (("validation", split.validation), ("test", split.test)):
        if not len(rows):
            raise FitError(
                f"{collection.name}: no {name} queries ({len(judged)} queries have a positive "
                "judgement). Judge more queries, at least 10, or fit without labels (--labels 0)."
            )
    if not len(split.train):
        raise FitError(
            f"{collection.name}: no training query at {config.labels:.0%} of {len(judged)} judged "
            "queries. Use a larger share of labels, or --labels 0."
        )
    return _with_unlabelled(collection, split)


def _with_unlabelled(collection: Collection, split: Split) -> Split:
    rows = np.arange(len(collection.query_ids), dtype=np.int64)
    rows = rows[~np.isin(rows, np.concatenate([split.train, split.validation, split.test]))]
    words = key_words(collection.query_text_keys)
    _, group = np.unique(words, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return split._replace(unlabelled=rows[~np.isin(group[rows], group[split.test])])


def _shuffle_groups(
    collection: Collection, judged: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Shuffle query rows, equal texts side by side; also gives each one's group number."""
    words = key_words(collection.query_text_keys[judged])
    _, first, group = np.unique(words, axis=0, return_index=True, return_inverse=True)
    # Groups are numbered by first occurrence, so that the shuffle follows the file's order.
    by_first = np.argsort(np.argsort(first))
    group = by_first[group.reshape(-1)]
    place = np.empty(len(first), dtype=np.int64)
    order = np.arange(len(first))
    np.random.default_rng(seed).shuffle(order)
    place[order] = np.arange(len(first))
    shuffled = np.lexsort((np.arange(len(judged)), place[group]))
    return judged[shuffled], place[group][shuffled]


def _cut(groups: IntArray, at: int) -> int:
    """Move a cut to the left until it parts no group."""
    while 0 < at < len(groups) and groups[at] == groups[at - 1]:
        at -= 1
    return at


def _paper(shuffled: IntArray, groups: IntArray, config: SplitConfig) -> Split:
    count = len(shuffled)
    test = _cut(groups, count - int(count * config.test))
    validation = _cut(groups, test - int(count * config.validation))
    wanted = min(int(count * config.labels), config.count or count)
    train = min(_cut(groups, wanted), validation)
    return Split(
        np.sort(shuffled[:train]),
        np.sort(shuffled[validation:test]),
        np.sort(shuffled[test:]),
        config,
    )


def _paper_exact(judged: IntArray, config: SplitConfig) -> Split:
    """Cut as the published code cuts: sizes are floors from the front, never below one."""
    rows = judged.tolist()
    random.Random(config.seed).shuffle(rows)  # noqa: S311
    count = len(rows)
    test = max(1, int(count * (1 - config.test)))
    validation = min(max(1, int(count * (1 - config.test - config.validation))), test)
    wanted = min(int(count * config.labels), config.count or count)
    train = max(1, min(wanted, validation))
    cut = np.array(rows, dtype=np.int64)
    return Split(np.sort(cut[:train]), np.sort(cut[validation:test]), np.sort(cut[test:]), config)


def _source(
    collection: Collection, shuffled: IntArray, groups: IntArray, config: SplitConfig
) -> Split:
    parts: dict[str, IntArray] = {}
    for part, names in _SOURCE_NAMES.items():
        numbers = [i for i, name in enumerate(collection.splits) if name in names]
        mine = np.isin(collection.qrels_split, numbers) & (collection.qrels.relevance >= 1)
        parts[part] = np.unique(collection.qrels.query_rows[mine])
    if not config.labels and not len(parts["train"]) and len(parts["test"]):
        return Split(parts["train"], parts["train"], np.sort(parts["test"]), config)
    if not len(parts["test"]) or not len(parts["train"]):
        raise FitError(
            f"{collection.name}: splits {collection.splits} lack a train or a test split. Use the "
            "paper's rule (--split paper)."
        )
    # A text that is in test may be nowhere else; one in validation not in train.
    group_of = dict(zip(shuffled.tolist(), groups.tolist(), strict=True))
    taken = {group_of[row] for row in parts["test"].tolist()}
    order = [row for row in shuffled.tolist() if group_of[row] not in taken]
    in_validation = set(parts["validation"].tolist())
    validation = np.array([row for row in order if row in in_validation], np.int64)
    taken |= {group_of[row] for row in validation.tolist()}
    in_train = set(parts["train"].tolist())
    train = np.array([r for r in order if r in in_train and group_of[r] not in taken], np.int64)
    if not len(validation):
        train_groups = np.array([group_of[row] for row in train.tolist()], np.int64)
        cut = _cut(train_groups, len(train) - max(1, int(len(train) * config.validation)))
        train, validation = train[:cut], train[cut:]
    share = _cut(
        np.array([group_of[row] for row in train.tolist()], np.int64),
        max(1, min(int(len(train) * config.labels), config.count or len(train))),
    )
    return Split(np.sort(train[:share]), np.sort(validation), np.sort(parts["test"]), config)
