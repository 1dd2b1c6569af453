"""``era-serve``: adapters behind HTTP, as OpenAI's clients ask for embeddings."""

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
from era_cache.cli.search import opened_lookup
from era_cache.cli.serve_options import listening, require_server, run_server
from era_cache.cli.stores import opened_store
from era_cache.cli.text_options import how_to_read
from era_cache.errors import InputError

if TYPE_CHECKING:
    from era_cache.encode.encoder import Encoder
    from era_cache.serve.engine import Lookup
    from era_cache.serve.http.app import App

__all__ = ["main"]


@click.command(cls=EraCommand)
@click.argument("adapters", metavar="[NAME=]ADAPTER…", nargs=-1, required=True)
@click.option("--store", type=StorePlace(), help="Search in it, too: /v1/search and the page.")
@click.option(
    "--collection",
    shell_complete=completion.collections,
    help="Where the adapter was fitted on several, or to search one that it was not fitted on.",
)
@click.option("--texts", type=PathArgument, help="Folder of the collection: show texts.")
@how_to_read
@click.option("--candidate", help="Another candidate than the chosen one.")
@click.option("--query-model", help="Large model, where it was moved: a folder or hub name.")
@click.option("--doc-model", help="Small model, likewise.")
@listening("it")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A name by which a proxy reaches it; may be repeated.",
)
@click.option(
    "--seed",
    type=seed_number,
    metavar="N",
    help="Seed of the page's random queries.  [default: others each time]",
)
@index_option("it may miss some, and is kept in the store")
@check_option
@device_option
@quiet_option
@version_option
def main(adapters: tuple[str, ...], **options: Any) -> None:
    """Serve each ADAPTER over HTTP until Ctrl-C.

    POST /v1/embeddings as OpenAI's clients do: model NAME encodes queries, NAME/document documents
    by the small model. With --store there is a page that compares rankings. A folder that is
    replaced is taken within seconds. A folder that holds both, as 'make demo' leaves it, is enough.

    \b
    Examples:
      era-serve adapters/toy --store stores/mine --texts data/toy
      era-serve search=adapters/toy --host 0.0.0.0 --token auto --name search.example.org
      era-serve demo
    """
    require_server()
    named = _named(adapters, options)
    if options["store"] is None and options["texts"] is not None:
        raise click.UsageError("--texts is of --store: texts are shown beside what is found.")
    if options["store"] is None and options["index"] != "exact":
        raise click.UsageError("--index is of --store: without one nothing is searched.")

    def says(base: str, url: str) -> list[str]:
        lines = [f"{base}v1: models {', '.join(f'{n}, {n}/document' for n in named)}"]
        if url != base:
            lines.append(f"API key: {url.partition('token=')[2]}")
        return lines + ([f"Open {url}"] if options["store"] is not None else [])

    run_server(lambda thread: _app(named, options, thread), options, says)


def _named(adapters: tuple[str, ...], options: dict[str, Any]) -> dict[str, Path]:
    """Name to adapter folder; a folder of a demo brings its store and texts."""
    found: dict[str, Path] = {}
    for given in adapters:
        name, equals, path = given.partition("=")
        folder = Path(path if equals else given)
        name = name if equals else folder.resolve().name
        if not (folder / "config.json").exists() and (folder / "adapter" / "config.json").exists():
            _demo(folder, options)
            folder = folder / "adapter"
        if not name or name in found or "/" in name or not name.isprintable():
            raise InputError(
                f"{given}: {name!r} cannot name an adapter, or names two. Give each a name without "
                "a slash: NAME=ADAPTER."
            )
        found[name] = folder
    return found


def _demo(folder: Path, options: dict[str, Any]) -> None:
    if options["store"] is None and (folder / "store").is_dir():
        options["store"] = folder / "store"
        texts = [path.parent for path in sorted(folder.glob("*/corpus.jsonl"))]
        if len(texts) == 1 and options["texts"] is None:
            options["texts"] = texts[0]


def _app(named: Mapping[str, Path], options: dict[str, Any], thread: ThreadPoolExecutor) -> App:
    from era_cache.fitting.threads import use_free_threads
    from era_cache.serve.http.app import App
    from era_cache.serve.http.served import Opening, Served
    from era_cache.serve.source import default_candidates, open_source

    use_free_threads()
    pool: dict[str, Encoder] = {}
    shown: list[str] = []
    first = next(iter(named))

    def lookup(folder: Path, models: Mapping[str, Encoder]) -> Lookup:
        source = open_source(opened_store(options["store"]), folder, options["collection"])
        if not shown:  # the page was given out with these
            shown.extend(default_candidates(source))
        names = list(dict.fromkeys([*default_candidates(source), *source.candidates]))
        return opened_lookup(source, names, models, options)

    served = {}
    for name, folder in named.items():
        tell(f"opening {name} …")
        searches = lookup if options["store"] is not None and name == first else None
        opening = Opening(
            options["query_model"],
            options["doc_model"],
            options["candidate"],
            options["device"],
            searches,
        )
        served[name] = Served(name, folder, opening, pool)
        fusion = served[name].current.queries.encoder.fusion
        if fusion is not None:
            note(
                f"{name}: rank by cosine + {fusion[1]:g} * {fusion[0]}_score; /v1/embeddings gives "
                "the vectors."
            )
    return App(served, None, shown, pool=pool, seed=options["seed"], thread=thread)
