"""Fitting from arrays, without a store: for notebooks and other people's pipelines.

In: vectors of the labelled queries from one or both models, document vectors of the small one,
labels, numpy or torch. Out: a ``RetrievalAdapter``, which maps further queries into the index's
space, measures itself, and is saved as an adapter folder (docs/format.md).

Labels (``qrels``) may be
- a dict, query -> {document: grade} or query -> relevant document or documents,
- a list of tuples, or an array (k, 2) or (k, 3): query row, document row, and the grade if not 1
  (an array with as many rows as there are queries is refused: it could be the next form),
- a list or array with an entry for each query: the row or rows of its relevant documents,
- ``types.Qrels``,
- ``LabelsById``, any of these with ids of the queries or documents.
Grades from 1 on are positive.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from msgspec import structs

from era_cache.errors import FormatError, InputError
from era_cache.evaluate.score import DEPTH
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.adapter_config import AdapterConfig, Metrics
from era_cache.fitting.adapter_folder import load_adapter, load_config, load_metrics, save_adapters
from era_cache.fitting.arrays import (
    Given,
    checked_arrays,
    checked_first_stage,
    labelled_data,
    record_of,
)
from era_cache.fitting.candidates import VIEWS_READ, unfused_name
from era_cache.fitting.config import FitConfig, FitOptions
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.label_forms import LabelsById, judgements
from era_cache.fitting.model_card import arrays_card
from era_cache.fitting.recipes import FitResult, fit_candidates
from era_cache.fitting.rows import has_width, rows_of, same_count
from era_cache.fitting.settings import checked
from era_cache.fitting.tensors import resolve_device
from era_cache.rank.answers import Answers
from era_cache.rank.fuse import fused_rankings
from era_cache.rank.lists import FirstStage
from era_cache.rank.measures import evaluate, mean, parse_measure
from era_cache.rank.search import search
from era_cache.types import Array, IntArray

if TYPE_CHECKING:
    import torch

    Vectors = Array | torch.Tensor

__all__ = ["Answers", "FirstStage", "FitOptions", "LabelsById", "RetrievalAdapter", "fit"]

_V = TypeVar("_V", Array, "torch.Tensor")


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
    record: AdapterConfig
    metrics: Metrics
    config: FitConfig | None = None
    result: FitResult | None = None
    doc_ids: Sequence[Hashable] | None = None
    """Of the corpus that was fitted on, where labels came with them."""

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

        first = small if large is None else large
        device = first.device if isinstance(first, torch.Tensor) else torch.device("cpu")
        views = {}
        for name, vectors in (("large", large), ("small", small)):
            if vectors is not None:
                views[name] = rows_of(vectors, f"{name}_queries", device)
            elif name in self.adapter.views:
                raise InputError(
                    f"The chosen candidate, {self.chosen}, reads the {name} model's queries; pass "
                    f"{name}_queries."
                )
        if len(views) == 2:
            same_count(views["large"], "large_queries", views["small"], "small_queries")
        d_small, d_in = self.adapter.weight.shape
        width = {"small": d_small, "large": d_in - d_small * ("small" in self.adapter.views)}
        for name in self.adapter.views:
            has_width(views[name], f"{name}_queries", width[name], "the adapter")
        return self.adapter.to(device).apply(views)

    def search(
        self,
        large_queries: Vectors | None,
        corpus_vectors: Vectors,
        k: int,
        small_queries: Vectors | None = None,
        *,
        first_stage: FirstStage | None = None,
        doc_ids: Sequence[Hashable] | None = None,
    ) -> Answers:
        """Find the k best documents of each query; of equal ones the lower row first.

        By cosine, or by cosine and the scores of ``first_stage`` where the chosen candidate is
        joined with one.

        Args:
            large_queries: as for ``transform``.
            corpus_vectors: (N, d_small).
            k: documents for each query.
            small_queries: as for ``transform``.
            first_stage: what that system found for these queries.
            doc_ids: of the corpus; None takes those that came with the labels, as long as there is
                one for each document.

        Returns:
            (n, k) document rows and scores, best first, and ids where they are known.

        Raises:
            InputError: vectors cannot be used, k is below 1, or the first stage is missing.
        """
        if k < 1:
            raise InputError(f"k={k}: expected at least 1 document for each query.")
        mapped = self._mapped(large_queries, small_queries)
        corpus = unit(rows_of(corpus_vectors, "corpus_vectors", mapped.device))
        has_width(corpus, "corpus_vectors", mapped.shape[1], "the adapter")
        fusion = self.adapter.fusion
        if doc_ids is None and len(self.doc_ids or ()) == len(corpus):
            doc_ids = self.doc_ids
        if doc_ids is not None and len(doc_ids) != len(corpus):
            raise InputError(f"{len(doc_ids)} doc_ids for {len(corpus)} documents.")
        if fusion is None:
            return Answers.of(search(mapped, corpus, k), doc_ids)
        if first_stage is None or first_stage.name != fusion.run:
            raise InputError(
                f"The chosen candidate, {self.chosen}, is joined with {fusion.run}: pass its lists "
                f"as first_stage, or map by adapters['{unfused_name(self.chosen)}'] alone."
            )
        first = checked_first_stage(first_stage, len(mapped), len(corpus), mapped.device)
        return Answers.of(fused_rankings(mapped, corpus, first, [fusion.weight], k)[0], doc_ids)

    def evaluate(
        self,
        large_queries: Vectors | None,
        qrels: Any,
        corpus_vectors: Vectors,
        small_queries: Vectors | None = None,
        measures: Sequence[str] = ("nDCG@10", "R@100"),
        *,
        first_stage: FirstStage | None = None,
    ) -> dict[str, float]:
        """Measure the chosen candidate on queries that took no part in fitting.

        Args:
            large_queries: as for ``transform``.
            qrels: labels in one of the module's forms.
            corpus_vectors: (N, d_small).
            small_queries: as for ``transform``.
            measures: names as in ir_measures.
            first_stage: as for ``search``.

        Returns:
            Measure name to mean over the queries that have a positive; those without a cutoff look
            at 1,000 documents.

        Raises:
            InputError: vectors, labels or measures cannot be used.
        """
        parsed = [parse_measure(name) for name in measures]
        n_docs = len(corpus_vectors)
        depth = min(max([m.cutoff or DEPTH for m in parsed], default=1), max(1, n_docs))
        ranking = self.search(
            large_queries, corpus_vectors, depth, small_queries, first_stage=first_stage
        )
        judged = judgements(qrels, len(ranking.doc_rows), n_docs)
        usable = np.unique(judged.query_rows[judged.relevance >= 1])
        values = evaluate(ranking.doc_rows, judged, parsed, n_docs)
        return {str(measure): mean(values[measure][usable]) for measure in parsed}

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write an adapter folder.

        The folder names no encoders, so that nothing can check what it is applied to: commands that
        compare fingerprints refuse it.

        Args:
            folder: made where it is missing; an older adapter fitted on arrays is replaced.
            overwrite: so are one that era-fit fitted, and results.

        Raises:
            InputError: it holds other things, or what would be lost.
            StoreError: a file cannot be written.
        """
        record = structs.replace(self.record, chosen=self.chosen, choice_reason=self.reason)
        card = arrays_card(self.chosen, self.reason, self.candidates, self.adapter.fusion)
        save_adapters(Path(folder), self.adapters, record, self.metrics, card, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> RetrievalAdapter:
        """Read an adapter folder, from ``save`` or from era-fit.

        Whether vectors are of the encoders that it was fitted on is for the caller to know.

        Raises:
            FormatError: not an adapter folder, damaged, hostile or newer.
            StoreError: it cannot be read.
        """
        path = Path(folder)
        record, metrics = load_config(path), load_metrics(path)
        means = {name: one.validation for name, one in metrics.candidates.items()}
        if metrics.judging_queries == 0:
            means = dict.fromkeys(means, math.nan)  # fitted without labels
        known = {name: mean for name, mean in means.items() if mean is not None}
        lacking = ", ".join(name for name in record.candidates if name not in known)
        if lacking:
            raise FormatError(f"{path / 'metrics.json'}: incomplete: {lacking} has no mean.")
        return cls(
            adapters={name: load_adapter(path, name) for name in record.candidates},
            candidates={name: known[name] for name in record.candidates},
            chosen=record.chosen,
            reason=record.choice_reason,
            record=record,
            metrics=metrics,
        )


def fit(
    query_vectors: Vectors,
    corpus_vectors: Vectors,
    qrels: Any = None,
    *,
    small_queries: Vectors | None = None,
    align: Mapping[str, Vectors] | None = None,
    first_stage: FirstStage | None = None,
    validation: float | Sequence[int] | IntArray | None = None,
    options: FitOptions = FitOptions(),  # noqa: B008
) -> RetrievalAdapter:
    """Fit every candidate that the vectors allow, and choose one by held-out labels.

    Vectors are arrays or tensors of any float dtype and device; rows are scaled to unit length
    here. Without ``small_queries`` there are only ``aligned`` and ``era``, also where both models
    have the same dimension: nothing says that their spaces are one.

    Args:
        query_vectors: (n, d_large), the large model's queries. Those without a label only help
            where queries align.
        corpus_vectors: (N, d_small), the small model's documents: the live index.
        qrels: labels in one of the module's forms. None fits without any: ``era-zero``, or
            ``small`` where the vectors show that something is wrong; ``small_queries`` and the
            alignment texts are needed then, and no candidate has a held-out mean (NaN).
        small_queries: (n, d_small), the same queries by the small model.
        align: texts that both models encoded, usually documents, in one order: ``{"large": rows
            (m, d_large), "small": rows (m, d_small)}``. All of them align; the first
            ``options.config.reference_documents`` become references. Without it queries align
            (``small_queries``), and a third of them judges instead, or those of ``validation``.
        first_stage: what another system, such as BM25, found for the queries, with scores
            (``FirstStage``; arrays will do). Candidates are then also joined with it.
        validation: None to judge every labelled query by a model that never saw it and to train on
            all; else a share of the labelled queries between 0 and 1, or row numbers, that judge
            and never train. Queries equal to one of these do not train either.
        options: the recipe, the candidate that ships, the device.

    Raises:
        InputError: an argument cannot be used; the message names it and the first bad row.
        FitError: there is nothing to align on or to learn from.
    """
    recipe, candidate = checked(options.config), options.candidate
    vectors = checked_arrays(
        Given(query_vectors, corpus_vectors, small_queries, align),
        resolve_device(options.device),
    )
    if first_stage is not None:
        vectors = vectors.joined(first_stage)
    if small_queries is None and "small" in VIEWS_READ.get(unfused_name(candidate), ()):
        raise InputError(f"Candidate '{candidate}' reads the small model's queries: small_queries.")
    if qrels is not None:
        data, recipe = labelled_data(vectors, qrels, validation, recipe)
    elif validation is not None:
        raise InputError("validation needs qrels: without labels nothing is judged.")
    else:
        data = vectors.without_labels()
    result = fit_candidates(data, recipe, candidate=candidate, progress=options.tell)
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
        record=record_of(data, recipe),
        metrics=result.metrics(),
        config=recipe,
        result=result,
        doc_ids=qrels.doc_ids if isinstance(qrels, LabelsById) else None,
    )
