"""Where a server listens, and that it runs: what era-serve and era-search --web share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import Command, all_of, note, say
from era_cache.errors import InputError

if TYPE_CHECKING:
    from era_cache.serve.http.app import App

__all__ = ["listening", "require_server", "run_server"]


def listening(what: str) -> Callable[[Command], Command]:
    """The options that say where a server listens.

    Args:
        what: for the help texts: what listens.
    """
    return all_of(
        click.option("--host", default="127.0.0.1", help=f"Where {what} listens."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            metavar="N",
            default=8750,
            help="Its port; 0 takes any free one.",
        ),
        click.option(
            "--token",
            help="What each request must show, 16 characters or more; auto makes one. Needed where "
            "--host can be reached from other machines.",
        ),
    )


def require_server() -> None:
    """Find out that the packages of the server are there, before any work.

    Raises:
        InputError: one is missing.
    """
    try:
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"A server needs the package {error.name}: pip install 'era-cache[serve]'."
        ) from error


def run_server(
    make: Callable[[ThreadPoolExecutor], App],
    options: dict[str, Any],
    says: Callable[[str, str], list[str]],
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        make: gives the application, run in the thread that its models run in later.
        options: host, port, token and, maybe, names.
        says: the lines to print, by the address without and with the token.
    """
    from era_cache.serve.gate import make_token
    from era_cache.serve.http.server import Server

    token = make_token(options["token"])
    context = click.get_current_context()

    def made() -> App:
        with context.scope(cleanup=False):  # --quiet is known there, too
            return make(thread)

    thread = ThreadPoolExecutor(1, thread_name_prefix="models")
    server = Server(
        thread.submit(made).result(),
        host=options["host"],
        port=options["port"],
        token=token,
        names=options.get("names", ()),
    )
    with contextlib.suppress(KeyboardInterrupt):  # however soon it comes
        for line in says(server.base, server.url):
            say(line)
        note("Ctrl-C ends it.")
        server.run()
    server.close()
    note("Ended.")
