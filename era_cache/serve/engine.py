"""Search with an adapter's candidates, one query at a time.

In: a store, an adapter folder, encoders for queries that the store does not know. Out: an
``Answer`` with the ranking of each candidate. Vectors are read once and kept as tensors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from era_cache.collection.keys import row_keys
from era_cache.collection.splits import Split
from era_cache.disk.shown import clean
from era_cache.encode.encoder import Encoder
from era_cache.errors import FormatError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.tensors import resolve_device
from era_cache.rank.fuse import fused_rankings
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order
from era_cache.serve.answer import Answer, Asked, Searched, Spent
from era_cache.serve.first_stage import QueryScores
from era_cache.serve.models import check_model, encode_query, missing_models
from era_cache.serve.rankings import Rankings
from era_cache.serve.source import BASELINE, Source, known_candidates
from era_cache.serve.texts import Texts
from era_cache.store.key_index import KeyIndex
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, Keys, Role

if TYPE_CHECKING:
    import torch

__all__ = ["MOST_DEPTH", "Lookup"]

MOST_DEPTH = 1000
"""Depth to which ranks are known, and the deepest ranking that can be asked for."""


class Lookup:
    """An adapter over a collection, ready to be asked.

    Not for several threads at a time: whoever has some must take turns.

    Args:
        source: from ``open_source``.
        names: candidates to load, in the order they are shown.
        models: view (``large``, ``small``) to its encoder; without, only stored queries.
        texts: shown beside the ids.
        device: torch device name; None chooses.
        check: compare the digests of all segments first.

    Raises:
        FingerprintError: a model is another than the adapter was fitted on.
        InputError: a candidate is unknown.
        StoreError: rows are missing.
        FormatError: a segment or the adapter is damaged.
    """

    def __init__(
        self,
        source: Source,
        names: Sequence[str],
        *,
        models: Mapping[str, Encoder] | None = None,
        texts: Texts | None = None,
        device: str | None = None,
        check: bool = True,
    ) -> None:
        import torch

        self.source, self.models, self.texts = source, dict(models or {}), texts
        for view, model in self.models.items():
            check_model(model, source.encoders, view)
        self._cold = list({id(model): model for model in self.models.values()}.values())
        self._device = resolve_device(device)
        self.adapters = {
            name: load_adapter(source.folder, name).to(self._device)
            for name in known_candidates(names, source.candidates)
        }
        collection, encoders = source.collection, source.encoders
        self._sides = {"large": encoders.query, "small": encoders.small_query}
        self._indexes = {view: side.index(check=check) for view, side in self._sides.items()}
        document_index = encoders.document.index(check=check)
        self._corpus = self._unit_rows(encoders.document, collection.doc_keys, document_index)
        self._scores = QueryScores(source, texts, self._device)
        self._tie_ranks = torch.from_numpy(tie_order(collection.doc_ids)).to(self._device)
        self._row_of = {query_id: row for row, query_id in enumerate(collection.query_ids)}
        self._document_row_of: dict[str, int] = {}
        if collection.ignore_identical_ids:
            self._document_row_of = {doc_id: row for row, doc_id in enumerate(collection.doc_ids)}

    def find(
        self,
        text: str,
        instruction: str = "",
        *,
        names: Sequence[str] | None = None,
        depth: int = 10,
    ) -> Answer:
        """Search for a text.

        A query of the collection with just this text and instruction is searched by its stored
        vectors, and its judgements are shown.

        Args:
            text: the query, as it is.
            instruction: for prompts that have a place for it.
            names: candidates to compare, of those loaded; None is all of them.
            depth: documents shown of each ranking, at most ``MOST_DEPTH``.

        Raises:
            InputError: an empty text, an unknown candidate, or a model that is needed and missing.
            EncoderError: a model fails.
        """
        names = known_candidates(names or list(self.adapters), list(self.adapters))
        if not text.strip():
            raise InputError("The query is empty. Type some words.")
        if instruction and not self.source.takes_instruction:
            raise InputError(
                "Neither prompt has a place for an instruction ({instruction}), so it would change "
                "nothing. Leave it out."
            )
        try:
            key = row_keys(Role.QUERY, [text], [instruction])
        except InputError as error:
            raise InputError("The query is not valid Unicode. Mend or retype it.") from error
        rows = np.flatnonzero((self.source.collection.query_keys == key).all(axis=1))
        if len(rows):
            row = int(rows[0])
            asked = replace(self._stored(row), text=text, instruction=instruction)
            return self._answer(self._stored_views(row), asked, row, names, depth, None)
        views = {view for name in names for view in self.adapters[name].views}
        missing_models(views, self.models, self.source.encoders)
        self.warm_up()
        start = time.perf_counter()
        encoded: dict[int, FloatArray] = {}
        vectors = {}
        for view in sorted(views):
            model = self.models[view]
            if id(model) not in encoded:  # one model may serve both views
                encoded[id(model)] = encode_query(model, text, instruction)
            vectors[view] = self._unit(encoded[id(model)])
        encode_ms = 1000 * (time.perf_counter() - start)
        asked = Asked(None, text, instruction, None, None)
        return self._answer(vectors, asked, None, names, depth, encode_ms)

    def find_id(
        self, query_id: str, *, names: Sequence[str] | None = None, depth: int = 10
    ) -> Answer:
        """Search for a query of the collection by its stored vectors; no model is needed.

        Raises:
            InputError: there is no such query, or an unknown candidate.
            StoreError: its vectors are missing.
        """
        names = known_candidates(names or list(self.adapters), list(self.adapters))
        row = self._row_of.get(query_id)
        if row is None:
            collection = self.source.collection
            raise InputError(
                f"{collection.name} has no query '{clean(query_id)[:80]}' among its "
                f"{len(collection.query_ids):,}; the first is "
                f"'{clean(collection.query_ids[0])[:80]}'."
            )
        return self._answer(self._stored_views(row), self._stored(row), row, names, depth, None)

    def random_id(self, generator: np.random.Generator) -> str:
        """A judged query that the adapter has not seen; any judged one where all were seen.

        Raises:
            InputError: the collection has no judged query.
        """
        qrels = self.source.collection.qrels
        split = self.source.split
        rows = np.zeros(0, dtype=np.int64) if split is None else split.test
        if not len(rows):
            rows = np.unique(qrels.query_rows[qrels.relevance >= 1])
        if not len(rows):
            raise InputError(f"{self.source.collection.name} has no judged query.")
        return self.source.collection.query_ids[int(generator.choice(rows))]

    def warm_up(self) -> None:
        """Load the models, unless that was done: loading is no part of a query's time.

        Raises:
            EncoderError: one cannot be loaded.
        """
        while self._cold:
            encode_query(self._cold[-1], "warm", "")
            self._cold.pop()

    def _stored(self, row: int) -> Asked:
        collection, split, texts = self.source.collection, self.source.split, self.texts
        part = None if split is None else _part(split, row)
        relevant = (collection.qrels.query_rows == row) & (collection.qrels.relevance >= 1)
        return Asked(
            id=collection.query_ids[row],
            text=texts.queries[row] if texts else None,
            instruction=texts.instructions[row] if texts else "",
            part=part,
            relevant=int(np.count_nonzero(relevant)),
        )

    def _stored_views(self, row: int) -> dict[str, torch.Tensor]:
        keys = self.source.collection.query_keys[row : row + 1]
        return {
            view: self._unit_rows(side, keys, self._indexes[view])
            for view, side in self._sides.items()
        }

    def _unit_rows(self, side: StoredEncoder, keys: Keys, index: KeyIndex) -> torch.Tensor:
        vectors = side.vectors(keys, index=index)
        if not vectors.any(axis=1).all():
            raise FormatError(f"{side.folder}: a stored vector is all zero; damaged.")
        return self._unit(vectors)

    def _unit(self, vectors: FloatArray) -> torch.Tensor:
        import torch

        return unit(torch.from_numpy(vectors).to(self._device))

    def _answer(
        self,
        views: Mapping[str, torch.Tensor],
        asked: Asked,
        row: int | None,
        names: Sequence[str],
        depth: int,
        encode_ms: float | None,
    ) -> Answer:
        import torch

        if not 1 <= depth <= MOST_DEPTH:
            raise InputError(f"{depth} documents: expected 1 to {MOST_DEPTH}.")
        start = time.perf_counter()
        collection = self.source.collection
        reach = min(MOST_DEPTH, len(collection.doc_ids))
        first = None
        if any(self.adapters[name].fusion is not None for name in names):
            scores = self._scores
            first = scores.typed(asked.text or "") if row is None else scores.stored(row)
        mapped = torch.cat([self.adapters[name].apply(views) for name in names])
        # Where queries are documents, none finds itself.
        itself = -1 if row is None else self._document_row_of.get(collection.query_ids[row], -1)
        exclude = torch.full((len(names),), itself, device=self._device)
        ranking = search(mapped, self._corpus, reach, exclude=exclude, tie_ranks=self._tie_ranks)
        for number, name in enumerate(names):
            fusion = self.adapters[name].fusion
            if fusion is None or first is None:
                continue
            (joined,) = fused_rankings(
                mapped[number : number + 1],
                self._corpus,
                first,
                [fusion.weight],
                reach,
                exclude=exclude[:1],
                tie_ranks=self._tie_ranks,
            )
            ranking.doc_rows[number], ranking.scores[number] = joined.doc_rows[0], joined.scores[0]
        search_ms = 1000 * (time.perf_counter() - start)
        rankings = Rankings(
            self.source,
            self.texts,
            names,
            ranking,
            collection.qrels.select_queries(np.array([] if row is None else [row], np.int64)),
            itself,
            depth,
        )
        return Answer(
            collection=Searched(collection.name, collection.version, len(collection.doc_ids)),
            asked=asked,
            depth=depth,
            reach=reach,
            baseline=BASELINE if BASELINE in names else None,
            measure=str(PRIMARY),
            columns=rankings.columns(),
            elsewhere=rankings.elsewhere(),
            milliseconds=Spent(encode_ms, search_ms),
        )


def _part(split: Split, row: int) -> str:
    """The part of the split that a query is in."""
    parts = (("test", split.test), ("training", split.train), ("validation", split.validation))
    return next((name for name, rows in parts if bool((rows == row).any())), "unused")
