"""Look at single queries: the rankings of an adapter's candidates side by side.

In: a store, an adapter folder, and the two encoders where queries are typed that the store does
not know. Out: an ``Answer`` for each query, shown in the terminal (``show``) or on a page that a
small server gives out (``server``). Nothing is written.
"""

from __future__ import annotations

from era_cache.serve.answer import Answer, to_json
from era_cache.serve.engine import MOST_DEPTH, Lookup
from era_cache.serve.gate import make_token
from era_cache.serve.models import load_models
from era_cache.serve.server import SearchServer
from era_cache.serve.show import render
from era_cache.serve.source import Source, default_candidates, open_source
from era_cache.serve.texts import Texts, matching_texts

__all__ = [
    "MOST_DEPTH",
    "Answer",
    "Lookup",
    "SearchServer",
    "Source",
    "Texts",
    "default_candidates",
    "load_models",
    "make_token",
    "matching_texts",
    "open_source",
    "render",
    "to_json",
]
