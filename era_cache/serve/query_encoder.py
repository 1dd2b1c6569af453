"""From query texts to vectors of the index's space, by an adapter folder alone.

In: an adapter folder, texts. Out: what an index elsewhere is asked with. Both models, their
prompts, lengths and precision are those of the folder's record; a model whose fingerprint is
another is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.collection.keys import row_keys
from era_cache.encode.encoder import Encoder
from era_cache.encode.served_probe import check_server
from era_cache.errors import FormatError, InputError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.adapter_folder import load_adapter, load_config
from era_cache.fitting.tensors import resolve_device
from era_cache.serve.models import encode_queries, load_models, missing_models, specs_of_adapter
from era_cache.store.open_store import open_store
from era_cache.store.store import Store
from era_cache.types import Array, FloatArray, Keys, Role

if TYPE_CHECKING:
    import torch

    from era_cache.store.key_index import KeyIndex
    from era_cache.store.stored_encoder import StoredEncoder

__all__ = ["QueryEncoder", "instructions_of", "texts_of"]


class QueryEncoder:
    """Maps query texts into the space of the documents that an adapter was fitted for.

    Models are opened from where they were when era-embed ran: a folder, or the hub by name and
    revision; one that lies elsewhere now is named here. Their weights are read by the first text.

    Args:
        adapter: a folder that era-fit wrote.
        query_model: the large model, a folder or hub name; None is where it was.
        doc_model: the small model, likewise.
        candidate: name of a candidate of the folder; None is the chosen one.
        store: whose vectors of the same encoders spare encoding texts that it has.
        remember: keep new vectors in that store. Such texts need no encoding again, by anyone.
        device: torch device name; None chooses.

    Raises:
        FingerprintError: a model is another than the adapter was fitted with.
        InputError: a model that is read was moved and not named.
        FormatError: not an adapter folder, damaged, newer, or without a record of its models.
    """

    def __init__(
        self,
        adapter: str | Path,
        *,
        query_model: str | Path | None = None,
        doc_model: str | Path | None = None,
        candidate: str | None = None,
        store: str | Path | Store | None = None,
        remember: bool = False,
        device: str | None = None,
    ) -> None:
        self.folder = folder = Path(adapter)
        config = load_config(folder)
        self.candidate = candidate or config.chosen
        self.device = resolve_device(device)
        self.adapter: Adapter = load_adapter(folder, self.candidate).to(self.device)
        if store is not None and not isinstance(store, Store):
            store = open_store(store)
        self._specs = specs_of_adapter(folder, config, store)
        given = {"large": query_model, "small": doc_model}
        self._given = {view: None if one is None else str(one) for view, one in given.items()}
        self._models: dict[str, Encoder] | None = None
        if store is None and remember:
            raise InputError("remember=True needs a store to keep the vectors in.")
        self._kept = None if store is None else _Kept(store, self._specs, remember=remember)
        if self._kept is None:
            self._opened()  # what cannot be opened is told now, not by the first query

    def __repr__(self) -> str:
        models = " and ".join(self._specs[view].label() for view in self.adapter.views)
        return f"QueryEncoder({self.candidate}: {models} -> {self.dim} dimensions)"

    @property
    def dim(self) -> int:
        """Dimensions of the index."""
        return int(self.adapter.weight.shape[0])

    @property
    def fusion(self) -> tuple[str, float] | None:
        """Name and weight of the first stage whose scores are to be added, None for none.

        The vectors alone are those of the candidate without it: rank by cosine plus weight times
        score (see the folder's README).
        """
        fusion = self.adapter.fusion
        return None if fusion is None else (fusion.run, fusion.weight)

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""
        templates = (self._specs[view].template for view in self.adapter.views)
        return any("{instruction}" in template for template in templates)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the models that the adapter reads, by view."""
        return {view: self._specs[view].fingerprint for view in self.adapter.views}

    def models(self) -> dict[str, Encoder]:
        """The models that the adapter reads, opened.

        Raises:
            InputError: one was moved and not named.
        """
        return dict(self._opened())

    def share(self, pool: dict[str, Encoder]) -> tuple[Encoder, frozenset[str]]:
        """Use models that a pool has, by their fingerprints, and give it those that it lacks.

        Returns:
            (the small model, whether or not queries read it; the fingerprints of both).

        Raises:
            InputError: one was moved and not named.
        """
        found = self._load(tuple(self._specs))
        for view, model in found.items():
            found[view] = pool.setdefault(self._specs[view].fingerprint, model)
        self._models = {view: found[view] for view in self.adapter.views}
        return found["small"], frozenset(spec.fingerprint for spec in self._specs.values())

    def encode(
        self, queries: str | Sequence[str], instructions: str | Sequence[str] = ""
    ) -> FloatArray:
        """Encode queries and map them.

        Args:
            queries: n texts as they are, without any prompt; or one.
            instructions: one for all, or one for each, for prompts that have a place for it.

        Returns:
            (n, d) float32 unit rows, to be compared by cosine or inner product.

        Raises:
            InputError: a text is empty or not valid Unicode.
            EncoderError: a model fails.
        """
        texts = texts_of(queries)
        return self.mapped(texts, instructions_of(instructions, len(texts))).cpu().numpy()

    def mapped(self, texts: list[str], instructions: list[str]) -> torch.Tensor:
        """The same as a tensor on the device; arguments as checked by ``texts_of``."""
        import torch

        if not texts:
            return torch.empty((0, self.dim), device=self.device)
        return self.adapter.apply(self.views(texts, instructions))

    def views(self, texts: list[str], instructions: list[str]) -> dict[str, torch.Tensor]:
        """What the adapter reads of some queries, (n, d) unit rows on the device."""
        import torch

        keys = row_keys(Role.QUERY, texts, instructions)
        return {
            view: unit(torch.from_numpy(self._vectors(view, texts, instructions, keys))).to(
                self.device
            )
            for view in self.adapter.views
        }

    def _vectors(
        self, view: str, texts: list[str], instructions: list[str], keys: Keys
    ) -> FloatArray:
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        distinct = keys[first]
        dim = self._specs[view].dim
        vectors = np.empty((len(distinct), dim), dtype=np.float32)
        missing = np.arange(len(distinct))
        if self._kept is not None:
            missing = self._kept.read(view, distinct, vectors)
        if len(missing):
            model = self._opened()[view]
            if self._kept is not None:
                self._kept.check(view, model)
            rows = first[missing].tolist()
            new = encode_queries(model, [texts[r] for r in rows], [instructions[r] for r in rows])
            if new.shape[1] != dim:
                raise FormatError(
                    f"{model.spec.name} gives {new.shape[1]} dimensions, the adapter reads {dim}."
                )
            vectors[missing] = new
            if self._kept is not None:
                said = [instructions[r] for r in rows]
                self._kept.write(view, model, [texts[r] for r in rows], said, new)
        found: FloatArray = vectors[inverse.reshape(-1)]
        return found

    def _opened(self) -> dict[str, Encoder]:
        """The models that the adapter reads.

        Raises:
            InputError: one was moved and not named.
        """
        if self._models is None:
            self._models = self._load(self.adapter.views)
        return self._models

    def _load(self, views: tuple[str, ...]) -> dict[str, Encoder]:
        found = load_models(
            self._specs, self._given, device=self.device, look="anywhere", views=views
        )
        missing_models(set(views), found, self._specs)
        return found


class _Kept:
    """Vectors of queries in a store: read, and added to where that is wanted."""

    def __init__(self, store: Store, specs: Mapping[str, Any], *, remember: bool) -> None:
        self._store = store
        self._remember = remember
        self._sides: dict[str, StoredEncoder] = {}
        self._indexes: dict[str, KeyIndex] = {}
        self._checked: set[str] = set()
        for view, spec in specs.items():
            side = self._store.find_encoder(spec.fingerprint)
            if side is not None:
                self._sides[view], self._indexes[view] = side, side.index()

    def check(self, view: str, model: Encoder) -> None:
        """Once, of a model behind an address: is it still the one whose vectors are stored?"""
        if view in self._sides and view not in self._checked:
            check_server(model, Role.QUERY, self._sides[view])
            self._checked.add(view)

    def read(self, view: str, keys: Keys, out: FloatArray) -> Array:
        """Fill in the rows that are stored; the numbers of the others come back."""
        if view not in self._sides:
            return np.arange(len(keys))
        there = self._indexes[view].positions(keys) >= 0
        if there.any():
            out[there] = self._sides[view].vectors(keys[there], index=self._indexes[view])
        return np.flatnonzero(~there)

    def write(
        self,
        view: str,
        model: Encoder,
        texts: list[str],
        instructions: list[str],
        vectors: FloatArray,
    ) -> None:
        """Keep new vectors, if they are to be kept."""
        if not self._remember:
            return
        self._store.put(
            model.spec,
            Role.QUERY,
            texts,
            vectors,
            instructions=instructions,
            dtype="float32",
            provenance=model.provenance(),
        )
        side = self._store.encoder(model.spec.fingerprint(Role.QUERY))
        self._sides[view], self._indexes[view] = side, side.index()


def texts_of(queries: str | Sequence[str]) -> list[str]:
    """Queries as a list of texts that can be encoded.

    Raises:
        InputError: one is no text, or empty.
    """
    texts = [queries] if isinstance(queries, str) else list(queries)
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            what = "empty" if isinstance(text, str) else f"of type {type(text).__name__}"
            raise InputError(f"Query {row} is {what}: expected a text.")
    return texts


def instructions_of(given: str | Sequence[str], count: int) -> list[str]:
    """Instructions as a list of as many as there are queries.

    Raises:
        InputError: there are more or fewer.
    """
    found = [given] * count if isinstance(given, str) else list(given)
    if len(found) != count:
        raise InputError(f"{len(found)} instructions for {count} queries: give one, or one each.")
    return found
