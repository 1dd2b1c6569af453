"""ERA Cache: encode once, then fit and evaluate retrieval adapters on stored embeddings.

In: texts and two encoders, or their vectors. Out: an adapter for queries; the index stays as it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from era_cache.api import RetrievalAdapter, fit
    from era_cache.fitting.adapter_folder import load_adapter
    from era_cache.fitting.config import FitConfig, FitOptions
    from era_cache.serve.export.load import load_sentence_transformer
    from era_cache.serve.query_encoder import QueryEncoder
    from era_cache.serve.searcher import Searcher
    from era_cache.store.open_store import open_store
    from era_cache.store.store import Store

__version__ = "0.1.0"

__all__ = [
    "FitConfig",
    "FitOptions",
    "QueryEncoder",
    "RetrievalAdapter",
    "Searcher",
    "Store",
    "__version__",
    "fit",
    "load_adapter",
    "load_sentence_transformer",
    "open_store",
]

_HOME = {
    "FitConfig": "fitting.config",
    "FitOptions": "fitting.config",
    "QueryEncoder": "serve.query_encoder",
    "RetrievalAdapter": "api",
    "Searcher": "serve.searcher",
    "Store": "store.store",
    "fit": "api",
    "load_adapter": "fitting.adapter_folder",
    "load_sentence_transformer": "serve.export.load",
    "open_store": "store.open_store",
}
"""Where each public name is defined; imported on first use: importing the package costs nothing."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
