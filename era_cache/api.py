"""Fitting from arrays, without a store: for notebooks and other people's pipelines.

In: vectors of the labelled queries from one or both models, document vectors of the small one,
labels, numpy or torch. Out: a ``RetrievalAdapter``, which maps further queries into the index's
space, measures itself, and is saved as an adapter folder (docs/format.md).

Labels (``qrels``) may be
- a dict, query -> {document: grade} or query -> relevant document or documents,
- a list of tuples, or an array (k, 2) or (k, 3): query row, document row, and the grade if not 1,
- a list or array with an entry for each query: the row or rows of its relevant documents,
- ``types.Qrels``.
In a dict, queries and documents are ids where ``query_ids`` and ``doc_ids`` are given; all other
integers are row numbers. Grades from 1 on are positive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from era_cache.config import FitConfig
from era_cache.disk.json_files import read_json
from era_cache.errors import FitError, FormatError, InputError
from era_cache.evaluate.score import DEPTH
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.adapter_folder import load_adapter, load_config, save_adapters
from era_cache.fitting.fit_from_store import environment
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.label_forms import judgements, usable_queries
from era_cache.fitting.recipes import FitResult, fit_candidates
from era_cache.fitting.settings import checked
from era_cache.fitting.tensors import FitData, QuerySet, resolve_device
from era_cache.fitting.who_judges import same_vectors
from era_cache.rank.measures import Ranking, evaluate, mean, parse_measure
from era_cache.rank.search import search
from era_cache.types import Array, IntArray, Qrels

if TYPE_CHECKING:
    import torch

    Vectors = Array | torch.Tensor

__all__ = ["RetrievalAdapter", "fit"]

_V = TypeVar("_V", Array, "torch.Tensor")
_SHORTEST = 1e-12
"""Rows below this length have no direction in float32."""
_SAME = 1e-6
_JUDGING = 1 / 3
"""Share of the queries that is set aside to judge where the others align the spaces."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RetrievalAdapter:
    """Fitted candidates and the chosen one of them, all on the CPU.

    ``candidates`` maps names to held-out means of nDCG@10, ``record`` and ``metrics`` are what
    ``config.json`` and ``metrics.json`` say; ``config`` holds the recipe's options and ``result``
    the values of each judging query; both are None in a loaded adapter.
    """

    adapters: Mapping[str, Adapter]
    candidates: Mapping[str, float]
    chosen: str
    reason: str
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    config: FitConfig | None = None
    result: FitResult | None = None

    @property
    def adapter(self) -> Adapter:
        """The chosen candidate."""
        return self.adapters[self.chosen]

    def __repr__(self) -> str:
        d_out, d_in = self.adapter.weight.shape
        means = ", ".join(f"{name} {value:.3f}" for name, value in self.candidates.items())
        return (
            f"RetrievalAdapter({self.chosen}: {' and '.join(self.adapter.views)}, {d_in} -> "
            f"{d_out}; held-out {PRIMARY}: {means})"
        )

    def transform(self, large_queries: _V | None, small_queries: _V | None = None) -> _V:
        """Map queries into the document space by the chosen candidate.

        Args:
            large_queries: (n, d_large) of any float dtype; None where the candidate does not read
                it.
            small_queries: (n, d_small), likewise.

        Returns:
            (n, d_small) float32 unit rows: a tensor on the device of the first argument given, or
            an array where that is one.

        Raises:
            InputError: a view that the candidate reads is missing, or vectors cannot be used.
        """
        import torch

        mapped = self._mapped(large_queries, small_queries)
        first = small_queries if large_queries is None else large_queries
        found: Any = mapped if isinstance(first, torch.Tensor) else mapped.numpy()
        return cast("_V", found)

    def _mapped(self, large: Vectors | None, small: Vectors | None) -> torch.Tensor:
        import torch

        given = {"large": large, "small": small}
        first = small if large is None else large
        device = first.device if isinstance(first, torch.Tensor) else torch.device("cpu")
        views = {}
        for name, vectors in given.items():
            if vectors is not None:
                views[name] = _rows(vectors, f"{name}_queries", device)
            elif name in self.adapter.views:
                raise InputError(
                    f"The chosen candidate, {self.chosen}, reads the {name} model's queries; pass "
                    f"{name}_queries."
                )
        if len(views) == 2:
            _same_count(views["large"], "large_queries", views["small"], "small_queries")
        d_small, d_in = self.adapter.weight.shape
        width = {"small": d_small, "large": d_in - d_small * ("small" in self.adapter.views)}
        for name in self.adapter.views:
            _has_width(views[name], f"{name}_queries", width[name], "the adapter")
        return self.adapter.to(device).apply(views)

    def search(
        self,
        large_queries: Vectors | None,
        corpus_vectors: Vectors,
        k: int,
        small_queries: Vectors | None = None,
    ) -> Ranking:
        """Find the k best documents of each query by cosine; of equal ones the lower row first.

        Args:
            large_queries: as for ``transform``.
            corpus_vectors: (N, d_small).
            k: documents for each query.
            small_queries: as for ``transform``.

        Returns:
            (n, k) document rows and cosines, best first.

        Raises:
            InputError: vectors cannot be used, or k is below 1.
        """
        if k < 1:
            raise InputError(f"k={k}: expected at least 1 document for each query.")
        mapped = self._mapped(large_queries, small_queries)
        corpus = unit(_rows(corpus_vectors, "corpus_vectors", mapped.device))
        _has_width(corpus, "corpus_vectors", mapped.shape[1], "the adapter")
        return search(mapped, corpus, k)

    def evaluate(
        self,
        large_queries: Vectors | None,
        qrels: Any,
        corpus_vectors: Vectors,
        small_queries: Vectors | None = None,
        measures: Sequence[str] = ("nDCG@10", "R@100"),
        *,
        query_ids: Sequence[Hashable] | None = None,
        doc_ids: Sequence[Hashable] | None = None,
    ) -> dict[str, float]:
        """Measure the chosen candidate on queries that took no part in fitting.

        Args:
            large_queries: as for ``transform``.
            qrels: labels in one of the module's forms.
            corpus_vectors: (N, d_small).
            small_queries: as for ``transform``.
            measures: names as in ir_measures.
            query_ids: of the n queries, where the labels use ids.
            doc_ids: of the N documents, likewise.

        Returns:
            Measure name to mean over the queries that have a positive; those without a cutoff look
            at 1,000 documents.

        Raises:
            InputError: vectors, labels or measures cannot be used.
        """
        parsed = [parse_measure(name) for name in measures]
        depth = max([m.cutoff or DEPTH for m in parsed], default=1)
        n_docs = len(corpus_vectors)
        ranking = self.search(
            large_queries, corpus_vectors, max(1, min(depth, n_docs)), small_queries
        )
        judged = judgements(qrels, (len(ranking.doc_rows), query_ids), (n_docs, doc_ids))
        usable = np.unique(judged.query_rows[judged.relevance >= 1])
        values = evaluate(ranking.doc_rows, judged, parsed, n_docs)
        return {str(measure): mean(values[measure][usable]) for measure in parsed}

    def save(self, folder: str | Path) -> None:
        """Write an adapter folder; an older adapter in it is replaced.

        The folder names no encoders, so that nothing can check what it is applied to: commands that
        compare fingerprints refuse it.

        Raises:
            StoreError: a file cannot be written.
        """
        record = {**self.record, "choice_reason": self.reason}
        save_adapters(Path(folder), self.adapters, self.chosen, record, self.metrics, self._card())

    def _card(self) -> str:
        rows = "\n".join(
            f"| {name}{' **(chosen)**' if name == self.chosen else ''} | {value:.4f} |"
            for name, value in self.candidates.items()
        )
        return f"""# Retrieval adapter

Maps query vectors into the space of an existing index. Fitted on arrays: which encoders made them
is not recorded. Chosen candidate: **{self.chosen}** — {self.reason}.

| candidate | held-out {PRIMARY} |
|---|---|
{rows}

The files hold vectors of alignment documents and of labelled queries (its references): share them
as you would share those texts' vectors.

    from era_cache.api import RetrievalAdapter
    adapter = RetrievalAdapter.load("this folder")
    vectors = adapter.transform(large_queries, small_queries)
"""

    @classmethod
    def load(cls, folder: str | Path) -> RetrievalAdapter:
        """Read an adapter folder, from ``save`` or from era-fit.

        Whether vectors are of the encoders that it was fitted on is for the caller to know.

        Raises:
            FormatError: not an adapter folder, damaged, hostile or newer.
            StoreError: it cannot be read.
        """
        path = Path(folder)
        record = load_config(path)
        metrics: dict[str, Any] = read_json(path / "metrics.json", "era-metrics", 1)
        try:
            means = {n: float(metrics["candidates"][n]["validation"]) for n in record["candidates"]}
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path / 'metrics.json'}: incomplete: {error!r}.") from error
        adapters = {name: load_adapter(path, name) for name in record["candidates"]}
        own = ("format", "version", "chosen", "candidates", "choice_reason")
        return cls(
            adapters=adapters,
            candidates=means,
            chosen=str(record["chosen"]),
            reason=str(record.get("choice_reason", "")),
            record={key: value for key, value in record.items() if key not in own},
            metrics={k: v for k, v in metrics.items() if k not in ("format", "version")},
        )


def fit(
    query_vectors: Vectors,
    corpus_vectors: Vectors,
    qrels: Any,
    *,
    small_queries: Vectors | None = None,
    align_large: Vectors | None = None,
    align_small: Vectors | None = None,
    validation: float | Sequence[int] | IntArray | None = None,
    query_ids: Sequence[Hashable] | None = None,
    doc_ids: Sequence[Hashable] | None = None,
    config: FitConfig | None = None,
    candidate: str = "auto",
    device: str | None = None,
    seed: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> RetrievalAdapter:
    """Fit every candidate that the vectors allow, and choose one by held-out labels.

    Vectors are arrays or tensors of any float dtype and device; rows are scaled to unit length
    here. Without ``small_queries`` there are only ``aligned`` and ``era``, also where both models
    have the same dimension: nothing says that their spaces are one.

    Args:
        query_vectors: (n, d_large), the large model's queries. Those without a label only help
            where queries align.
        corpus_vectors: (N, d_small), the small model's documents: the live index.
        qrels: labels in one of the module's forms.
        small_queries: (n, d_small), the same queries by the small model.
        align_large: (m, d_large), texts that both models encoded, usually documents. All of them
            align; the first ``config.reference_documents`` become references.
        align_small: (m, d_small), the same texts in the same order. Without the two, the queries
            themselves align the spaces, which takes ``small_queries``; those that align cannot
            judge, so that a third of them is set aside unless ``validation`` says which.
        validation: None to judge every labelled query by a model that never saw it and to train on
            all; else a share of the labelled queries between 0 and 1, or row numbers, that judge
            and never train. Queries equal to one of these do not train either.
        query_ids: of the n queries, where the labels use ids.
        doc_ids: of the N documents, likewise.
        config: the recipe; None is the default.
        candidate: ``auto``, or a name from ``choose.CANDIDATES`` that ships whatever labels say.
        device: torch device name to fit on; None chooses.
        seed: in place of ``config.seed``.
        progress: told in words what is being fitted.

    Raises:
        InputError: an argument cannot be used; the message names it and the first bad row.
        FitError: there is nothing to align on or to learn from.
    """
    recipe = config or FitConfig()
    recipe = checked(recipe if seed is None else dataclasses.replace(recipe, seed=seed))
    vectors = _checked(
        query_vectors, corpus_vectors, small_queries, align_large, align_small, device
    )
    if small_queries is None and candidate in ("small", "era-dual", "small+"):
        raise InputError(f"Candidate '{candidate}' reads the small model's queries: small_queries.")
    judged = judgements(qrels, (len(vectors.large), query_ids), (len(vectors.corpus), doc_ids))
    recipe = _recipe(recipe, vectors, validation is not None)
    if validation is None and recipe.align_texts != "documents":
        validation = _JUDGING  # queries that align cannot judge
        recipe = dataclasses.replace(recipe, refit=False)
    train, judges = _parts(
        validation, usable_queries(judged, len(vectors.corpus)), vectors.large, recipe
    )
    data = _fit_data(vectors, judged, train, judges)
    result = fit_candidates(data, recipe, candidate=candidate, progress=progress)
    reason = result.choice.reason
    if candidate != "auto":
        reason = f"asked for by candidate='{candidate}'"
    elif small_queries is None:
        reason += " (without small_queries, aligned is all that there is to compare with)"
    return RetrievalAdapter(
        adapters={name: fit.adapter.to("cpu") for name, fit in result.candidates.items()},
        candidates={name: fit.mean for name, fit in result.candidates.items()},
        chosen=result.choice.name,
        reason=reason,
        record=_record(data, recipe),
        metrics=_metrics(result),
        config=recipe,
        result=result,
    )


# Vectors


class _Checked(NamedTuple):
    """Unit float32 rows on one device; without alignment texts ``align_*`` have no row."""

    large: torch.Tensor
    small: torch.Tensor | None
    corpus: torch.Tensor
    align_large: torch.Tensor
    align_small: torch.Tensor


def _checked(
    query_vectors: Vectors,
    corpus_vectors: Vectors,
    small_queries: Vectors | None,
    align_large: Vectors | None,
    align_small: Vectors | None,
    device: str | None,
) -> _Checked:
    where = resolve_device(device)
    large = _varied(query_vectors, "query_vectors", where)
    corpus = _varied(corpus_vectors, "corpus_vectors", where)
    small = None
    if small_queries is not None:
        small = _varied(small_queries, "small_queries", where)
        _same_count(small, "small_queries", large, "query_vectors")
        _has_width(small, "small_queries", corpus.shape[1], "corpus_vectors")
    if align_large is None and align_small is None:
        if small is None:
            raise FitError(
                "Nothing to align the two spaces on. Pass align_large and align_small, the same "
                "texts (usually documents) by both models, or small_queries."
            )
        return _Checked(large, small, corpus, large[:0], corpus[:0])
    if align_large is None or align_small is None:
        missing = "align_large" if align_large is None else "align_small"
        raise InputError(f"{missing} is missing: alignment needs the same texts by both models.")
    rows = _varied(align_large, "align_large", where), _varied(align_small, "align_small", where)
    _same_count(rows[0], "align_large", rows[1], "align_small")
    _has_width(rows[0], "align_large", large.shape[1], "query_vectors")
    _has_width(rows[1], "align_small", corpus.shape[1], "corpus_vectors")
    return _Checked(large, small, corpus, *rows)


def _rows(vectors: Vectors, name: str, device: torch.device | str) -> torch.Tensor:
    """Rows of an argument as float32, finite and not zero, as long as they were given."""
    import torch

    tensor = vectors if isinstance(vectors, torch.Tensor) else _tensor(vectors, name)
    if not tensor.is_floating_point():
        raise InputError(f"{name} holds {tensor.dtype}; floating-point vectors are expected.")
    if tensor.ndim != 2 or not tensor.shape[1]:
        raise InputError(
            f"{name} has the shape {tuple(tensor.shape)}; (rows, dimensions) is expected."
        )
    tensor = tensor.detach().to(device=device, dtype=torch.float32)
    lengths = tensor.norm(dim=1)
    for wrong, what in (
        (~lengths.isfinite(), "holds NaN, infinity or numbers too large for float32"),
        (lengths < _SHORTEST, "is zero, which has no direction"),
    ):
        bad = wrong.nonzero()
        if len(bad):
            raise InputError(f"{name}: row {int(bad[0])} {what} ({len(bad)} such rows).")
    return tensor


def _tensor(vectors: Any, name: str) -> torch.Tensor:
    import torch

    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"{name} is no matrix: {error}.") from error
    if array.dtype.kind != "f":
        raise InputError(f"{name} holds {array.dtype}; floating-point vectors are expected.")
    with np.errstate(over="ignore"):  # infinity is reported with its row
        return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def _varied(vectors: Vectors, name: str, device: str) -> torch.Tensor:
    """Unit rows that are not all the same."""
    rows = unit(_rows(vectors, name, device))
    if not len(rows):
        raise InputError(f"{name} has no row.")
    if len(rows) > 1 and bool((rows @ rows[0] > 1 - _SAME).all()):
        raise InputError(
            f"{name}: all {len(rows)} rows point the same way; nothing tells them apart."
        )
    return rows


def _same_count(one: torch.Tensor, name: str, other: torch.Tensor, other_name: str) -> None:
    if len(one) != len(other):
        raise InputError(
            f"{name} has {len(one)} rows, but {other_name} has {len(other)}; they must be the same "
            "texts in the same order."
        )


def _has_width(rows: torch.Tensor, name: str, width: int, whose: str) -> None:
    if rows.shape[1] != width:
        raise InputError(
            f"{name} has {rows.shape[1]} dimensions; {width} are expected, as of {whose}."
        )


# Fitting


def _recipe(config: FitConfig, vectors: _Checked, fixed_judges: bool) -> FitConfig:
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


def _parts(
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


def _fit_data(vectors: _Checked, judged: Qrels, train: IntArray, judges: IntArray) -> FitData:
    import torch

    views = {"large": vectors.large}
    if vectors.small is not None:
        views["small"] = vectors.small

    def part(rows: IntArray) -> QuerySet:
        here = torch.from_numpy(rows).to(vectors.large.device)
        return QuerySet(
            ids=[str(row) for row in rows.tolist()],
            views={name: all_rows[here] for name, all_rows in views.items()},
            qrels=judged.select_queries(rows),
            exclude=None,
        )

    return FitData(
        train=part(train),
        validation=part(judges),
        corpus=vectors.corpus,
        tie_ranks=torch.arange(len(vectors.corpus), device=vectors.corpus.device),
        align_large=vectors.align_large,
        align_small=vectors.align_small,
    )


def _record(data: FitData, config: FitConfig) -> dict[str, Any]:
    """What ``config.json`` says of the inputs: no store, no encoders, no split."""
    return {
        "collection": {"name": "arrays", "digest": ""},
        "encoders": {},
        "dimensions": {
            "large": data.train.views["large"].shape[1],
            "small": data.corpus.shape[1],
        },
        "queries": {"train": len(data.train.ids), "validation": len(data.validation.ids)},
        "alignment_documents": len(data.align_large),
        "recipe": {"name": "era", **dataclasses.asdict(config)},
        "environment": environment(),
    }


def _metrics(result: FitResult) -> dict[str, Any]:
    return {
        "primary": str(PRIMARY),
        "judging_queries": sum(len(v) for v in result.candidates["aligned"].values),
        "missing": list(result.missing),
        "candidates": {
            name: {"validation": fit.mean, "options": fit.options}
            for name, fit in result.candidates.items()
        },
        "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
    }
