"""A snapshot of 126 made tasks in MAIR's layout, part of ``python -m benchmarks.embed``.

Embedded, fitted by all three protocols and reported, one command each, with an encoder of digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Bar
from benchmarks.mair_snapshot import write_mair
from era_cache.collection.mair_tasks import DOMAIN_OF
from era_cache.encode.encoder import KINDS, EncoderSettings
from era_cache.store.encoder_record import EncoderSpec
from era_cache.types import FloatArray, Role

__all__ = ["DigestEncoder", "snapshot_of_all_tasks"]

_PROTOCOLS = ("general", "leave-one-domain-out", "domain-specific")


class DigestEncoder:
    """Vectors from digests of the words; the name is ``WIDTH-SEED``."""

    def __init__(self, model: str, settings: EncoderSettings) -> None:
        width, _, self._seed = model.partition("-")
        self._width = int(width)
        templates = {
            Role.QUERY: settings.query_template or "{text}",
            Role.DOCUMENT: settings.document_template or "{text}",
        }
        self.spec = EncoderSpec(model, {"kind": "digest", "model": model}, templates, {})

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """Sums of the words' vectors."""
        del role
        rows = [sum(_word(self._seed, w, self._width) for w in text.split()) for text in texts]
        yield list(range(len(texts))), np.array(rows, dtype=np.float32)

    def provenance(self) -> dict[str, Any]:
        """Nothing runs."""
        return {"device": "cpu"}


@cache
def _word(seed: str, word: str, width: int) -> FloatArray:
    digest = hashlib.blake2b(f"{seed}/{word}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(width)


def snapshot_of_all_tasks() -> list[Bar]:
    """Time the commands that a user would give."""
    from era_cache.cli import embed
    from era_cache.cli.eval_protocols import PROTOCOL_COMMANDS

    KINDS.own["digest"] = f"{__name__}:DigestEncoder"
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_mair(root / "snapshot", list(DOMAIN_OF))
        store = str(root / "store")
        words = ["mair:*", "--read", f"folder={root / 'snapshot'}", "--store", store]
        words += ["--query-model", "digest:64-large", "--doc-model", "digest:48-small"]
        with _timed(seconds, "embed"):
            embed.main.main([*words, "--keep-identical-ids", "--quiet"], standalone_mode=False)
        for name in _PROTOCOLS:
            with _timed(seconds, name):
                given = [store, "--out", str(root / name), "--labels", "20", "--quiet"]
                PROTOCOL_COMMANDS[name].main(given, standalone_mode=False)
            assert (root / name / "report.html").is_file()
    total = sum(seconds.values())
    parts = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    shown = f"{total:.0f} s ({parts})"
    return [Bar("126 tasks embedded, three protocols, reports", "< 600 s", shown, total < 600)]


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
    seconds[name] = time.perf_counter() - start
