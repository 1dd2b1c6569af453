"""``era-search``: look at single queries under the candidates of an adapter, here or on a page."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    StorePlace,
    check_option,
    device_option,
    index_option,
    note,
    seed_number,
    version_option,
)
from era_cache.cli.progress import quiet_option, tell
from era_cache.cli.search_prompt import converse, print_answer
from era_cache.cli.serve_options import listening, require_server, run_server
from era_cache.cli.stores import opened_store
from era_cache.cli.text_options import how_to_read, read_texts
from era_cache.errors import InputError

if TYPE_CHECKING:
    from era_cache.encode.encoder import Encoder
    from era_cache.serve.answer import Answer
    from era_cache.serve.engine import Lookup
    from era_cache.serve.http.app import App
    from era_cache.serve.source import Source
    from era_cache.serve.texts import Texts
    from era_cache.types import Where

__all__ = ["main", "opened_lookup"]

MOST_DEPTH = 1000


@click.command(cls=EraCommand)
@click.argument("store_path", metavar="STORE", type=StorePlace())
@click.argument("adapter", type=PathArgument)
@click.argument("query", metavar="[QUERY]…", nargs=-1)
@click.option("--id", "query_id", help="Search for a query of the collection; needs no model.")
@click.option("--query-model", help="Large model, as for era-embed: a folder or hub name.")
@click.option("--doc-model", help="Small model, as for era-embed: a folder or hub name.")
@click.option(
    "--instruction", default="", show_default=False, help="For prompts that have a place for it."
)
@click.option(
    "--collection",
    shell_complete=completion.collections,
    help="Where the adapter was fitted on several, or to search one that it was not fitted on.",
)
@click.option(
    "--candidates",
    shell_complete=completion.candidates,
    metavar="NAMES",
    help="What is compared, with commas.  [default: small, aligned and the chosen one]",
)
@click.option(
    "-k",
    "--depth",
    type=click.IntRange(1, MOST_DEPTH),
    metavar="N",
    default=10,
    help="Documents shown of each ranking.",
)
@click.option(
    "--texts",
    type=PathArgument,
    help="Folder of the collection (BEIR layout): show texts beside the ids.",
)
@how_to_read
@click.option("--web", is_flag=True, help="Serve a page for it instead, until Ctrl-C.")
@listening("--web")
@click.option(
    "--seed",
    type=seed_number,
    metavar="N",
    help="Seed of the random queries.  [default: others each time]",
)
@index_option("it may miss some, and is kept in the store")
@check_option
@device_option
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print the result of one query as JSON.")
@version_option
def main(store_path: Where, adapter: Path, query: tuple[str, ...], **options: Any) -> None:
    """Search STORE for QUERY with the candidates of ADAPTER, side by side.

    Without QUERY and --id it asks for queries until an empty line. A query that the collection
    does not hold has to be encoded, which takes both models.

    \b
    Examples:
      era-search stores/mine adapters/toy --id q12 --texts data/toy
      era-search stores/mine adapters/toy --query-model LARGE --doc-model SMALL
    """
    text = " ".join(query)
    _check_usage(text, options)
    if options["web"]:
        require_server()
    if options["web"]:
        run_server(lambda thread: _page(store_path, adapter, options, thread), options, _says)
        return
    lookup, _ = _lookup(store_path, adapter, options)
    if text or options["query_id"] is not None:
        print_answer(_asked(lookup, text, options), options["as_json"])
    else:
        converse(lookup, options)


def _lookup(store_path: Where, adapter: Path, options: dict[str, Any]) -> tuple[Lookup, list[str]]:
    """What is searched, and the candidates that are shown at first."""
    from era_cache.serve.source import default_candidates, open_source

    source = open_source(opened_store(store_path), adapter, options["collection"])
    if options["instruction"] and not source.takes_instruction:
        raise InputError(
            "--instruction: neither prompt has a place for one ({instruction}). Leave it out."
        )
    shown = [name.strip() for name in (options["candidates"] or "").split(",") if name.strip()]
    shown = shown or default_candidates(source)
    # On the page any of them can be chosen.
    names = list(dict.fromkeys([*shown, *source.candidates])) if options["web"] else shown
    return _opened(source, names, options), shown


def _check_usage(text: str, options: dict[str, Any]) -> None:
    one = bool(text) or options["query_id"] is not None
    if text and options["query_id"] is not None:
        raise click.UsageError("Give a QUERY or --id, not both.")
    if options["web"] and (one or options["as_json"]):
        raise click.UsageError("--web takes its queries on the page: no QUERY, --id or --json.")
    if options["as_json"] and not one:
        raise click.UsageError("--json needs a QUERY or --id.")


def _opened(source: Source, names: list[str], options: dict[str, Any]) -> Lookup:
    from era_cache.fitting.threads import use_free_threads
    from era_cache.serve.models import load_models

    use_free_threads()
    models = load_models(
        source.encoders.models(),
        {"large": options["query_model"], "small": options["doc_model"]},
        device=options["device"],
        look="nowhere" if options["query_id"] is not None else "folders",
    )
    return opened_lookup(source, names, models, options)


def opened_lookup(
    source: Source, names: list[str], models: Mapping[str, Encoder], options: dict[str, Any]
) -> Lookup:
    """What is searched, with the texts of its documents where a folder of them is named.

    Args:
        source: an adapter and its collection.
        names: candidates to load.
        models: of typed queries, by view.
        options: texts and how to read them, device, check.

    Raises:
        EraError: anything does not fit.
    """
    from era_cache.serve.engine import Lookup

    texts = _texts(source, options) if options["texts"] is not None else None
    lookup = Lookup(
        source,
        names,
        models=models,
        texts=texts,
        device=options["device"],
        check=options["check"],
        index=options["index"],
        tell=lambda text: tell(f"{text} …"),
    )
    collection = source.collection
    note(
        f"{source.since}."
        if source.since
        else f"{collection.name}-{collection.version}: {len(collection.doc_ids):,} documents."
    )
    for text in lookup.notes:
        note(text)
    return lookup


def _texts(source: Source, options: dict[str, Any]) -> Texts:
    from era_cache.serve.texts import matching_texts

    wanted = {**options, "name": source.collection.name, "all_queries": True}
    texts = matching_texts(source.collection, read_texts(options["texts"], wanted))
    for message in texts.messages():
        note(f"{options['texts']}: {message}")
    return texts


def _asked(lookup: Lookup, text: str, options: dict[str, Any]) -> Answer:
    if options["query_id"] is not None:
        return lookup.find_id(options["query_id"], depth=options["depth"])
    return lookup.find(text, options["instruction"], depth=options["depth"])


def _page(
    store_path: Where, adapter: Path, options: dict[str, Any], thread: ThreadPoolExecutor
) -> App:
    from era_cache.serve.http.app import App

    lookup, shown = _lookup(store_path, adapter, options)
    return App({}, lookup, shown, seed=options["seed"], thread=thread)


def _says(_base: str, url: str) -> list[str]:
    return [f"Open {url}"]
