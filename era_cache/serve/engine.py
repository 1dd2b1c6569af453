"""Search with an adapter's candidates, one query at a time.

In: a store, an adapter folder, encoders for queries that the store does not know. Out: an
``Answer`` with the ranking of each candidate. Vectors are read once and kept as tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from era_cache.collection.keys import row_keys
from era_cache.collection.splits import Split
from era_cache.disk.shown import clean
from era_cache.encode.encoder import Encoder
from era_cache.encode.served_probe import check_server
from era_cache.errors import InputError
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.tensors import resolve_device
from era_cache.rank.measures import Ranking
from era_cache.serve.answer import Answer, Asked, Searched, Spent
from era_cache.serve.first_stage import QueryScores
from era_cache.serve.models import check_model, encode_queries, missing_models
from era_cache.serve.ranker import Ranker
from era_cache.serve.rankings import Rankings
from era_cache.serve.source import BASELINE, Source, known_candidates
from era_cache.serve.texts import Texts
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, Role

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
        index: what is searched: all documents (``exact``), or an index of ``rank.approximate``.
        tell: told in words what takes long.

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
        index: str = "exact",
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:

        self.source, self.models, self.texts = source, dict(models or {}), texts
        self._tell = tell
        for view, model in self.models.items():
            check_model(model, source.encoders.models(), view)
        self._cold = list({id(model): model for model in self.models.values()}.values())
        self._device = resolve_device(device)
        if index != "exact":
            tell(f"opening the {index} index, or building it")
        self._ranker = Ranker(source, names, self._device, check=check, index=index)
        self.notes = self._ranker.notes
        self.adapters = self._ranker.adapters
        collection = source.collection
        self._scores = QueryScores(source, texts, self._device)
        self._row_of = {query_id: row for row, query_id in enumerate(collection.query_ids)}

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
        row = int(self._ranker.query_rows(key)[0])
        if row >= 0:
            asked = replace(self._stored(row), text=text, instruction=instruction)
            return self._answer(self._ranker.stored_views(key), asked, row, names, depth, None)
        views = {view for name in names for view in self.adapters[name].views}
        missing_models(views, self.models, self.source.encoders.models())
        self.warm_up()
        start = time.perf_counter()
        encoded: dict[int, FloatArray] = {}
        vectors = {}
        for view in sorted(views):
            model = self.models[view]
            if id(model) not in encoded:  # one model may serve both views
                encoded[id(model)] = encode_queries(model, [text], [instruction])
            vectors[view] = self._ranker.unit(encoded[id(model)])
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
        views = self._ranker.stored_views(self.source.collection.query_keys[row : row + 1])
        return self._answer(views, self._stored(row), row, names, depth, None)

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
            self._tell(f"loading {self._cold[-1].spec.name}")
            encode_queries(self._cold[-1], ["warm"], [""])
            for view, model in self.models.items():
                if model is self._cold[-1]:
                    check_server(model, Role.QUERY, self._stored_queries(view))
            self._cold.pop()

    def _stored_queries(self, view: str) -> StoredEncoder:
        encoders = self.source.encoders
        return encoders.query if view == "large" else encoders.small_query

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

    def _answer(
        self,
        views: Mapping[str, torch.Tensor],
        asked: Asked,
        row: int | None,
        names: Sequence[str],
        depth: int,
        encode_ms: float | None,
    ) -> Answer:

        if not 1 <= depth <= MOST_DEPTH:
            raise InputError(f"{depth} documents: expected 1 to {MOST_DEPTH}.")
        start = time.perf_counter()
        collection = self.source.collection
        reach = min(MOST_DEPTH, len(collection.doc_ids))
        first = None
        if any(self.adapters[name].fusion is not None for name in names):
            place = np.array([-1 if row is None else row])
            first = self._scores.of(place, [asked.text or ""])
        own = self._ranker.own_documents(np.array([-1 if row is None else row]))
        ranked = self._ranker.rank(views, names, reach, itself=own, first=first)
        ranking = Ranking(
            np.concatenate([one.doc_rows for one in ranked.values()]),
            np.concatenate([one.scores for one in ranked.values()]),
        )
        search_ms = 1000 * (time.perf_counter() - start)
        rankings = Rankings(
            self.source,
            self.texts,
            names,
            ranking,
            collection.qrels.select_queries(np.array([] if row is None else [row], np.int64)),
            int(own[0]),
            depth,
        )
        return Answer(
            collection=Searched(
                collection.name, collection.version, len(collection.doc_ids), self._ranker.near_by
            ),
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
