"""A store in a bucket against the same store in a folder: the part ``bucket`` of benchmarks.scale.

The bucket is a server in a process of its own on this machine, so that only the work around the
requests is measured, not a network. It cuts each range from a copy of the whole object, which makes
it slower at ranges than at whole files; no real object store is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Bar, seconds_of, skipped

__all__ = ["bucket_bars"]

_ROUNDS = 3
_SERVER = """
import logging, sys, time
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _bucket() -> Iterator[Any]:
    """Run a server; give fsspec's view of it, with a bucket ``b``."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        names = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
        os.environ |= dict.fromkeys(names, "x") | {"AWS_DEFAULT_REGION": "us-east-1"}
        os.environ["AWS_ENDPOINT_URL"] = address
        urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT")).close()
        import fsspec

        try:
            yield fsspec.filesystem("s3")
        finally:
            server.kill()


def _read(where: str | Path) -> None:
    """Read what a fit reads: a collection, and the rows of all its sides."""
    from era_cache.store.open_store import open_store
    from era_cache.store.records import ROLES

    store = open_store(where)
    (name,) = store.collection_names()
    collection = store.collection(name)
    for side, fingerprint in store.pairs(collection)[0].items():
        encoder = store.find_encoder(fingerprint)
        assert encoder is not None
        index, keys = encoder.index(), collection.keys_of(ROLES[side])
        encoder.half_vectors(keys[index.positions(keys) >= 0], index)


def bucket_bars(
    store: Path, folder: Path, run: Callable[[list[str]], float], *, fits: int
) -> list[Bar]:
    """Compare a cold and a warm cache with a folder and with plain downloads.

    Args:
        store: with one labelled collection.
        folder: for what is downloaded and fitted.
        run: runs era-fit with arguments; gives its seconds.
        fits: how often it is run at each place, in turns; medians of ratios count.
    """
    from era_cache.store.open_store import open_store
    from era_cache.store.sync import push

    cache, url = folder / "cache", "s3://bucket/store"
    (name,) = open_store(store).collection_names()
    os.environ["ERA_CACHE_DIR"] = str(cache)
    with _bucket() as files:
        push(store, url)
        cold, plain = [], []
        for _ in range(_ROUNDS):
            plain.append(
                seconds_of(lambda: files.get(url, str(folder / "plain"), recursive=True))
                + seconds_of(lambda: _read(store))
            )
            shutil.rmtree(folder / "plain")
            shutil.rmtree(cache, ignore_errors=True)
            cold.append(seconds_of(lambda: _read(url)))
        here: list[float] = []
        there: list[float] = []
        for number in range(fits):
            for where, times in ((str(store), here), (url, there)):
                out = str(folder / f"fit-{number}-{'here' if times is here else 'there'}")
                times.append(run([where, name, "--out", out]))
    ratio = statistics.median(c / p for c, p in zip(cold, plain, strict=True))
    print(json.dumps({"cold": cold, "plain": plain, "fit": here, "warm": there}), file=sys.stderr)
    reading = Bar("bucket, cold, over downloading and reading", "1.3", f"{ratio:.2f}", ratio <= 1.3)
    what = "era-fit from a bucket, warm, over a folder"
    if not fits:
        return [reading, skipped(what, "a tenth is seen of several fits only: without --quick")]
    warm = statistics.median(t / h for t, h in zip(there, here, strict=True))
    return [reading, Bar(what, "1.10", f"{warm:.2f}", warm <= 1.1)]
