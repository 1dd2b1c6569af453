"""What the tests of era-search share: a planted store with an adapter, and nasty texts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from hash_encoder import HashEncoder
from planted import QUICK, embedded, planted_texts

from era_cache.collection.config import SplitConfig
from era_cache.collection.records import TextCollection
from era_cache.encode.encoder import Encoder
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.sources import Reading
from era_cache.serve.engine import Lookup
from era_cache.serve.source import default_candidates, open_source
from era_cache.serve.texts import matching_texts
from era_cache.store.store import Store

SPLIT = SplitConfig(labels=0.3)
NASTY = {
    "d003": "<script>document.title='owned'</script>",
    "d004": "<img/src=x/onerror=alert(1)>",
    "d005": "\x1b]0;owned\x07\x1b[31mred\x9b2J",
    "d006": "\u202etxt.exe\u2066\u200f",
    "d007": "w" * 3000,
    "d008": "🙂👩‍👩‍👧漢字e\u0301",
    "d009": "'\"&amp;</style></script>${x}",
}
"""Document id to what it is called instead; its text begins with it, too."""


class Case(NamedTuple):
    """A planted collection, embedded and fitted."""

    store: Store
    folder: Path
    texts: TextCollection

    def encoders(self) -> dict[str, HashEncoder]:
        """New encoders of both views, which count what they encode."""
        return {"large": HashEncoder(24, "large"), "small": HashEncoder(16, "small")}

    def lookup(self, *, typed: bool = False, texts: bool = False, names=None) -> Lookup:
        source = open_source(self.store, self.folder)
        return Lookup(
            source,
            names or default_candidates(source),
            models=self.encoders() if typed else None,
            texts=matching_texts(source.collection, self.texts) if texts else None,
            device="cpu",
        )


def build(
    path: Path,
    texts: TextCollection | None = None,
    candidate: str = "era-dual",
    **encoders: Encoder,
) -> Case:
    """Embed a collection and fit an adapter; ``large`` and ``small`` may be other encoders."""
    texts = texts or planted_texts()
    store, _ = embedded(path / "store", texts, **encoders)
    return fitted(Case(store, path / "adapter", texts), texts.name, candidate)


def fitted(case: Case, names: str | list[str], candidate: str = "era-dual") -> Case:
    """Fit the adapter of a case."""
    fit_to_folder(
        case.store,
        names,
        case.folder,
        FitPlan(SPLIT, QUICK, candidate=candidate),
        Reading(device="cpu"),
    )
    return case


def nasty_texts() -> TextCollection:
    """Planted texts some of whose documents are called and say what must not be obeyed."""
    texts = planted_texts()
    return texts._replace(
        doc_ids=[NASTY.get(doc_id, doc_id) for doc_id in texts.doc_ids],
        doc_texts=[
            f"{NASTY[doc_id]} {text}" if doc_id in NASTY else text
            for doc_id, text in zip(texts.doc_ids, texts.doc_texts, strict=True)
        ],
    )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
