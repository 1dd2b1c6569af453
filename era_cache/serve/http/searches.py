"""Searches by HTTP: what the page must know, what is asked for, and the answer as JSON.

In: the parameters of an address. Out: JSON; the search itself waits to be run by whoever has the
models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from era_cache import __version__
from era_cache.fitting.candidates import described
from era_cache.serve.answer import to_json
from era_cache.serve.engine import Lookup
from era_cache.serve.http.openai import refuse

__all__ = ["MOST_QUERY", "MOST_SHOWN", "PARAMETERS", "about", "asked_for", "random_query"]

MOST_QUERY = 4000
"""Characters of a query or an instruction."""
MOST_SHOWN = 100
"""Documents of a ranking that a request may ask for."""
PARAMETERS = ("query", "id", "instruction", "candidates", "k", "token")
_TEXT_SENT = 1000


def about(lookup: Lookup, shown: list[str]) -> dict[str, Any]:
    """What the page must know before the first search."""
    source = lookup.source
    return {
        "version": __version__,
        "collection": source.collection.name,
        "documents": len(source.collection.doc_ids),
        "queries": len(source.collection.query_ids),
        "candidates": [
            {
                "name": name,
                "kind": described(name),
                "chosen": name == source.chosen,
                "shown": name in shown,
            }
            for name in lookup.adapters
        ],
        "instruction": source.takes_instruction,
        "models": sorted(lookup.models),
        "texts": lookup.texts is not None,
        "most": {"query": MOST_QUERY, "documents": MOST_SHOWN},
    }


def random_query(lookup: Lookup, generator: np.random.Generator) -> dict[str, Any]:
    """A judged query of the collection.

    Raises:
        InputError: it has none.
    """
    return {"id": lookup.random_id(generator)}


def asked_for(
    values: Mapping[str, str], lookup: Lookup, shown: list[str]
) -> Callable[[], dict[str, Any]]:
    """The search that an address asks for; it raises ``EraError`` as ``Lookup.find`` does.

    Args:
        values: its parameters.
        lookup: what is searched.
        shown: candidates, where none are named.

    Raises:
        ApiError: the address asks for nothing that there is.
    """
    unknown = [name for name in values if name not in PARAMETERS]
    if unknown:
        refuse(f"No parameter {unknown[0][:40]!r}; there are {', '.join(PARAMETERS[:-1])}.")
    text, instruction = values.get("query", ""), values.get("instruction", "")
    if max(len(text), len(instruction)) > MOST_QUERY:
        refuse(f"A query may have {MOST_QUERY:,} characters at most.", "query")
    k = values.get("k", "10")
    if not re.fullmatch("[0-9]{1,3}", k) or not 1 <= int(k) <= MOST_SHOWN:
        refuse(f"k: expected a whole number from 1 to {MOST_SHOWN}.", "k")
    names = values["candidates"].split(",") if values.get("candidates") else shown
    known = [name for name in names if name in lookup.adapters]
    if shown is names:  # an adapter that was exchanged may lack one
        names = known or list(lookup.adapters)

    def search() -> dict[str, Any]:
        if values.get("id"):
            answer = lookup.find_id(values["id"], names=names, depth=int(k))
        else:
            answer = lookup.find(text, instruction, names=names, depth=int(k))
        found: dict[str, Any] = to_json(answer, most_text=_TEXT_SENT)
        return found

    if not (values.get("id") or text.strip()):
        refuse("Ask for a query or an id.", "query")
    return search
