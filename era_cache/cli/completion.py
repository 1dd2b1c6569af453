"""What a shell offers when Tab is pressed: collections, encoders, candidates, settings.

In: what was typed so far. Out: names; none where the store or adapter cannot be read, as nothing
may be said then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

import click

from era_cache.cli.stores import opened_store
from era_cache.fitting.config import FitConfig

__all__ = ["candidates", "collections", "encoders", "settings"]

_MOST_RECORD = 1 << 22
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _quietly(names: Callable[[click.Context], Iterable[str]]) -> Completer:
    def complete(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
        before, comma, last = typed.rpartition(",")
        try:
            found = sorted(set(names(context)))
        except Exception:  # noqa: BLE001 - whatever it is, a prompt is no place to say it
            return []
        return [f"{before}{comma}{name}" for name in found if name.startswith(last)]

    return complete


def _given(context: click.Context, name: str) -> str | None:
    """An argument that was typed; where an option still lacks its value, click sets none."""
    if context.params.get(name) is not None:
        return str(context.params[name])
    arguments = [one.name for one in context.command.params if isinstance(one, click.Argument)]
    place = arguments.index(name) if name in arguments else len(context.args)
    return context.args[place] if place < len(context.args) else None


def _store(context: click.Context) -> Path:
    return Path(_given(context, "store_path") or context.params["store"])


def _collections(context: click.Context) -> Iterable[str]:

    return opened_store(_store(context)).collection_names()


def _encoders(context: click.Context) -> Iterable[str]:

    return (one.spec.name for one in opened_store(_store(context)).encoders())


def _candidates(context: click.Context) -> Iterable[str]:
    adapter = _given(context, "adapter")
    if adapter is None:
        from era_cache.fitting.candidates import DEFAULT

        return ("auto", *DEFAULT)
    path = Path(adapter) / "config.json"
    if path.stat().st_size > _MOST_RECORD:
        return ()
    return [name for name in json.loads(path.read_bytes())["candidates"] if name.isprintable()]


def _settings(_context: click.Context) -> Iterable[str]:
    return (f"{one.name}=" for one in fields(FitConfig))


collections = _quietly(_collections)
encoders = _quietly(_encoders)
candidates = _quietly(_candidates)
settings = _quietly(_settings)
