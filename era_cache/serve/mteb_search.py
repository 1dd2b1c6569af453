"""MTEB over stored vectors: an adapter is measured on a task, and nothing is encoded again.

In: an adapter, a store that has the task's documents. Out: what ``mteb.evaluate`` takes as a model
(its ``SearchProtocol``). An exported folder needs none of this, but encodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cache.collection.keys import row_keys
from era_cache.errors import InputError, StoreError
from era_cache.fitting.adapter import unit
from era_cache.fitting.adapter_folder import load_config
from era_cache.fitting.candidates import unfused_name
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order
from era_cache.serve.query_encoder import QueryEncoder
from era_cache.store.open_store import open_store
from era_cache.store.store import Store
from era_cache.types import Role

if TYPE_CHECKING:
    import torch

__all__ = ["StoredSearch"]


class StoredSearch:
    """Searches a task's documents by their stored vectors, with queries behind an adapter.

    Texts are found by what they say, so a task whose texts were embedded under another name is
    served, too. Queries that the store lacks are encoded by the adapter's models.

    Args:
        adapter: a folder that era-fit wrote.
        store: with the documents' vectors.
        candidate: name of a candidate; None is the chosen one, without a first stage.
        device: torch device name; None chooses.

    Raises:
        InputError: a model is needed and was moved.
        FormatError: not an adapter folder, damaged, or newer.
    """

    def __init__(
        self,
        adapter: str | Path,
        store: str | Path | Store,
        *,
        candidate: str | None = None,
        device: str | None = None,
    ) -> None:
        self._store = store if isinstance(store, Store) else open_store(store)
        config = load_config(adapter)
        self.candidate = unfused_name(candidate or config.chosen)
        self._encoder = QueryEncoder(
            adapter, candidate=self.candidate, store=self._store, device=device
        )
        self._document = (config.encoders or {})["document"]
        self._ids: list[str] = []
        self._corpus: torch.Tensor | None = None
        self._ties: torch.Tensor | None = None

    def index(self, corpus: Any, **_given: Any) -> None:
        """Read the vectors of a task's documents.

        Args:
            corpus: rows with ``id``, ``text`` and maybe ``title``, which is joined in front.

        Raises:
            StoreError: the store lacks some of them.
        """
        import torch

        side = self._store.find_encoder(self._document.fingerprint)
        if side is None:
            raise StoreError(f"{self._store.label}: holds nothing of {self._document.name}.")
        rows = list(corpus)
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in rows]
        keys, index = row_keys(Role.DOCUMENT, texts), side.index()
        missing = int((index.positions(keys) < 0).sum())
        if missing:
            raise StoreError(
                f"{self._store.label}: lacks {missing:,} of the task's {len(rows):,} documents. "
                "Run era-embed on them first."
            )
        self._ids = [str(row["id"]) for row in rows]
        vectors = torch.from_numpy(side.vectors(keys, index=index))
        self._corpus = unit(vectors.to(self._encoder.device))
        self._ties = torch.from_numpy(tie_order(self._ids)).to(self._encoder.device)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Any = None, **_given: Any
    ) -> dict[str, dict[str, float]]:
        """Rank documents for a task's queries.

        Args:
            queries: rows with ``id``, ``text`` and maybe ``instruction``.
            top_k: documents of each ranking.
            top_ranked: of reranking tasks: query to the documents that are ranked.

        Returns:
            Query to document to cosine.

        Raises:
            InputError: ``index`` was not called.
        """
        if self._corpus is None:
            raise InputError("Nothing is indexed: call index first.")
        rows = list(queries)
        texts = [str(row["text"]) for row in rows]
        said = [str(row.get("instruction") or "") for row in rows]
        vectors = self._encoder.mapped(texts, said)
        reach = len(self._ids) if top_ranked else min(top_k, len(self._ids))
        ranking = search(vectors, self._corpus, reach, tie_ranks=self._ties)
        found = {}
        for row, documents, scores in zip(rows, ranking.doc_rows, ranking.scores, strict=True):
            wanted = None if top_ranked is None else set(top_ranked.get(str(row["id"]), ()))
            found[str(row["id"])] = {
                self._ids[at]: float(score)
                for at, score in zip(documents.tolist(), scores.tolist(), strict=True)
                if at >= 0 and (wanted is None or self._ids[at] in wanted)
            }
        return found

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB writes down of a model."""
        from mteb.models.model_meta import ModelMeta

        digest = self._document.fingerprint[:12]
        about = {
            "name": f"era-cache/{self.candidate}-{digest}",
            "revision": digest,
            "similarity_fn_name": "cosine",
            "embed_dim": self._encoder.dim,
        }
        return ModelMeta.create_empty(overwrites=about)
