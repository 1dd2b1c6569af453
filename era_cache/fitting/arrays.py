"""Arrays as people have them, as what fitting reads.

In: vectors of any float dtype, numpy or torch, and which queries judge. Out: unit rows on one
device, ``FitData``, the recipe that they allow; errors name the argument and its first bad row.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.adapter_config import AdapterConfig, NamedCollection, Parts
from era_cache.fitting.config import FitConfig
from era_cache.fitting.label_forms import judgements, usable_queries
from era_cache.fitting.rows import has_width, rows_of, same_count
from era_cache.fitting.sources import environment
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.fitting.who_judges import same_vectors
from era_cache.rank.lists import FirstStage
from era_cache.types import Array, IntArray, Qrels

if TYPE_CHECKING:
    import torch

    Vectors = Array | torch.Tensor

LISTS_OF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""What the name of a first stage may be."""

__all__ = [
    "LISTS_OF",
    "Arrays",
    "Given",
    "checked_arrays",
    "checked_first_stage",
    "labelled_data",
    "record_of",
]

_ALIGN = {"large": 'align["large"]', "small": 'align["small"]'}
"""What messages call the rows of both models that align the spaces."""
_SAME = 1e-6
_JUDGING = 1 / 3
"""Share of the queries that is set aside to judge where the others align the spaces."""


class Given(NamedTuple):
    """The vectors of a fit as they were given, by the names of the arguments."""

    query_vectors: Vectors
    corpus_vectors: Vectors
    small_queries: Vectors | None
    align: Mapping[str, Vectors] | None

    def by_name(self) -> dict[str, Vectors]:
        """What was given, by the names that messages use. Raises ``InputError`` of ``align``."""
        found = {name: rows for name, rows in self._asdict().items() if rows is not None}
        align = found.pop("align", {})
        if not isinstance(align, Mapping) or align.keys() - {"large", "small"}:
            held = list(align) if isinstance(align, Mapping) else type(align).__name__
            raise InputError(
                'align: expected {"large": rows, "small": rows}, the same texts by both models; '
                f"given is {held}."
            )
        named = {_ALIGN[side]: rows for side, rows in align.items() if rows is not None}
        return {**found, **named}


class Arrays(NamedTuple):
    """Unit float32 rows on one device; without alignment texts ``align_*`` have no row.

    ``first`` is what another system found for the queries, None for nothing.
    """

    large: torch.Tensor
    small: torch.Tensor | None
    corpus: torch.Tensor
    align_large: torch.Tensor
    align_small: torch.Tensor
    first: FirstStage | None = None

    def fit_data(self, judged: Qrels, train: IntArray, judges: IntArray) -> FitData:
        """Both parts of the queries with their labels, the corpus, the alignment texts."""
        import torch

        views = {"large": self.large, **({} if self.small is None else {"small": self.small})}

        def part(rows: IntArray) -> QuerySet:
            here = torch.from_numpy(rows).to(self.large.device)
            return QuerySet(
                ids=[str(row) for row in rows.tolist()],
                views={name: all_rows[here] for name, all_rows in views.items()},
                qrels=judged.select_queries(rows),
                exclude=None,
                first=None if self.first is None else self.first.select(rows),
            )

        return FitData(
            train=part(train),
            validation=part(judges),
            corpus=self.corpus,
            tie_ranks=torch.arange(len(self.corpus), device=self.corpus.device),
            align_large=self.align_large,
            align_small=self.align_small,
        )

    def joined(self, first: FirstStage) -> Arrays:
        """The same with another system's lists. Raises ``InputError`` where they do not fit."""
        n_queries, n_docs = len(self.large), len(self.corpus)
        return self._replace(first=checked_first_stage(first, n_queries, n_docs, self.large.device))

    def without_labels(self) -> FitData:
        """All queries as queries that nobody judged, and no others.

        Raises:
            FitError: there are no alignment texts.
        """
        if not len(self.align_large):
            raise FitError(
                "Nothing to align the two spaces on. Without qrels, pass "
                'align={"large": rows, "small": rows}: the same documents by both models.'
            )
        none = np.zeros(0, dtype=np.int64)
        everyone = np.arange(len(self.large), dtype=np.int64)
        unjudged = Qrels(none, none, none)
        data = self.fit_data(unjudged, none, none)
        return data._replace(unlabelled=self.fit_data(unjudged, everyone, none).train)


def checked_arrays(given: Given, device: str) -> Arrays:
    """The vectors of a fit as unit rows that fit together, on a torch device.

    Raises:
        InputError: an argument cannot be used.
        FitError: there is nothing to align on.
    """
    rows = {name: _varied(vectors, name, device) for name, vectors in given.by_name().items()}
    large, corpus, small = rows["query_vectors"], rows["corpus_vectors"], rows.get("small_queries")
    if small is not None:
        same_count(small, "small_queries", large, "query_vectors")
        has_width(small, "small_queries", corpus.shape[1], "corpus_vectors")
    missing = [name for name in _ALIGN.values() if name not in rows]
    if len(missing) == 2:
        if small is None:
            raise FitError(
                'Nothing to align the two spaces on. Pass align={"large": rows, "small": rows}, '
                "the same texts (usually documents) by both models, or small_queries."
            )
        return Arrays(large, small, corpus, large[:0], corpus[:0])
    if missing:
        raise InputError(f"{missing[0]} is missing: alignment needs the same texts by both models.")
    align_large, align_small = (rows[name] for name in _ALIGN.values())
    same_count(align_large, _ALIGN["large"], align_small, _ALIGN["small"])
    has_width(align_large, _ALIGN["large"], large.shape[1], "query_vectors")
    has_width(align_small, _ALIGN["small"], corpus.shape[1], "corpus_vectors")
    return Arrays(large, small, corpus, align_large, align_small)


def _varied(vectors: Vectors, name: str, device: str) -> torch.Tensor:
    """Unit rows that are not all the same."""
    rows = unit(rows_of(vectors, name, device))
    if not len(rows):
        raise InputError(f"{name} has no row.")
    if len(rows) > 1 and bool((rows @ rows[0] > 1 - _SAME).all()):
        raise InputError(
            f"{name}: all {len(rows)} rows point the same way; nothing tells them apart."
        )
    return rows


def checked_first_stage(
    given: FirstStage, n_queries: int, n_docs: int, device: torch.device
) -> FirstStage:
    """Lists of another system that fit some queries and documents, as tensors on a device.

    Raises:
        InputError: shapes, types or numbers do not fit.
    """
    import torch

    docs = torch.as_tensor(given.docs).to(device)
    scores = torch.as_tensor(given.scores).to(device, torch.float32)
    floor = torch.as_tensor(given.floor).to(device, torch.float32)
    whole = docs.dtype in (torch.int64, torch.int32)
    if not whole or docs.ndim != 2 or scores.shape != docs.shape:
        raise InputError(
            "first_stage: expected docs as whole numbers (queries, places) and scores of that "
            f"shape, not {docs.dtype} {tuple(docs.shape)} and {tuple(scores.shape)}."
        )
    if len(docs) != n_queries or floor.shape != (n_queries,):
        raise InputError(f"first_stage: {len(docs)} lists for {n_queries} queries.")
    docs = docs.to(torch.int64)
    there = docs >= 0
    if docs.numel() and int(docs.max()) >= n_docs:
        raise InputError(f"first_stage: document {int(docs.max())}, but there are {n_docs}.")
    own = torch.where(there, docs, n_docs + torch.arange(docs.shape[1], device=device))
    ordered = own.sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise InputError("first_stage: a list names a document twice.")
    scores = scores.where(there, 0.0)
    if not bool(torch.isfinite(scores).all() and torch.isfinite(floor).all()):
        raise InputError("first_stage: a score is NaN or infinite.")
    if not LISTS_OF.fullmatch(given.name):
        raise InputError(
            f"first_stage: the name {given.name!r}; expected letters, digits, - and _."
        )
    return FirstStage(given.name, docs, scores, floor)


def labelled_data(
    vectors: Arrays, qrels: Any, validation: Any, recipe: FitConfig
) -> tuple[FitData, FitConfig]:
    """The data of a fit with labels, and the recipe as the arguments allow it.

    Raises:
        InputError: an argument cannot be used, or the recipe asks for what was not given.
        FitError: no labelled query is left to train or to judge.
    """
    judged = judgements(qrels, len(vectors.large), len(vectors.corpus))
    recipe = recipe_for(recipe, vectors, validation is not None)
    if validation is None and recipe.align_texts != "documents":
        validation = _JUDGING  # queries that align cannot judge
        recipe = dataclasses.replace(recipe, refit=False)
    usable = usable_queries(judged, len(vectors.corpus))
    train, judges = parts_that_judge(validation, usable, vectors.large, recipe)
    return vectors.fit_data(judged, train, judges), recipe


def recipe_for(config: FitConfig, vectors: Arrays, fixed_judges: bool) -> FitConfig:
    """The recipe as the arguments allow it.

    Raises:
        InputError: the configuration asks for what was not given.
    """
    if not fixed_judges and not config.refit:
        raise InputError("config.refit is False, so that validation must say which queries judge.")
    if fixed_judges:
        config = dataclasses.replace(config, refit=False)
    if not len(vectors.align_large):
        # Queries cannot be references of themselves: each would look up its own answer.
        return dataclasses.replace(config, align_texts="queries", reference_documents=0)
    if vectors.small is None and config.align_texts != "documents":
        raise InputError(f"config.align_texts='{config.align_texts}' needs small_queries.")
    return config


def parts_that_judge(
    validation: Any, usable: IntArray, large: torch.Tensor, config: FitConfig
) -> tuple[IntArray, IntArray]:
    """Rows that train, and rows that only judge.

    Raises:
        InputError: ``validation`` is neither a share nor row numbers.
        FitError: no labelled query is left to train or to judge.
    """
    everyone = np.arange(len(large), dtype=np.int64)
    if validation is None:
        return everyone, everyone[:0]
    groups = same_vectors(large)
    if isinstance(validation, float | np.floating):
        if not 0 < validation < 1:
            raise InputError(f"validation={validation}: a share lies between 0 and 1.")
        distinct = np.random.default_rng(config.seed).permutation(np.unique(groups[usable]))
        chosen = distinct[: max(1, round(validation * len(distinct)))]
        rows = usable[np.isin(groups[usable], chosen)]
    else:
        rows = np.unique(_row_numbers(validation, len(large)))
    train = everyone[~np.isin(groups, groups[rows])]
    for part, what in ((train, "train"), (rows, "judge")):
        if not np.isin(part, usable).any():
            raise FitError(
                f"validation leaves no query with a positive to {what}; {len(usable)} queries have "
                "one."
            )
    return train, rows


def _row_numbers(validation: Any, n_queries: int) -> IntArray:
    rows = np.asarray(validation)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
        raise InputError("validation must be a share between 0 and 1, or a list of query rows.")
    wrong = rows[(rows < 0) | (rows >= n_queries)]
    if len(wrong):
        raise InputError(
            f"validation: query row {wrong[0]} is out of range; rows are 0 to {n_queries - 1}."
        )
    return rows.astype(np.int64)


def record_of(data: FitData, config: FitConfig) -> AdapterConfig:
    """What ``config.json`` says of the inputs: no store, no encoders, no split."""
    return AdapterConfig(
        chosen="",  # nothing is, yet
        collection=NamedCollection(name="arrays", digest=""),
        encoders={},
        dimensions={"large": data.train.views["large"].shape[1], "small": data.corpus.shape[1]},
        queries=Parts(train=len(data.train.ids), validation=len(data.validation.ids)),
        alignment_documents=len(data.align_large),
        recipe={"name": "era", **dataclasses.asdict(config)},
        environment=environment(),
    )
