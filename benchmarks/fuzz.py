"""The fuzz bar: ``python -m benchmarks.fuzz --cases 100000``.

Each case damages one file of a store, a pack or an adapter (checksums and names repaired, so that
the damage gets past them), and runs a command on it in this process. Wanted: no traceback, no crash
of the interpreter, nothing slower than five seconds, a peak below 512 MiB, no character that a
terminal would obey, and not one file opened or changed outside the case's own folder (an audit hook
watches).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common import Bar, finish
from benchmarks.mutate import mutated
from era_cache.collection.records import Dropped, TextCollection
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.store import sorted_keys
from era_cache.store.compact import compact
from era_cache.store.store import Store
from era_cache.types import Qrels
from tests.hash_encoder import HashEncoder

HANG_SECONDS = 5
_WRONG = ("traceback", "crash", "exit", "hang", "slow", "outside", "obeyed")
MOST_BYTES = 512 << 20
# Libraries may read their own files and the system's; everything else belongs to the case.
_LIBRARIES = tuple(
    str(Path(p).resolve()) for p in {sys.prefix, sys.base_prefix, str(Path(__file__).parent.parent)}
)
_SYSTEM = ("/proc/", "/sys/", "/etc/", "/usr/", "/dev/null", "/dev/urandom")
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod"}


class HangError(Exception):
    """A command did not come to an end in time."""


def build(folder: Path) -> None:
    """Make the sound files that all cases damage: every kind of file of every format."""
    texts = TextCollection(
        name="fuzz",
        domain="tests",
        ignore_identical_ids=False,
        doc_ids=[f"d{n}" for n in range(12)],
        doc_texts=[f"document {n} of a few words" for n in range(12)],
        query_ids=["q0", "q1", "q2"],
        query_texts=["first words", "second words", "third words"],
        instructions=["", "Find it", ""],
        splits={"test": Qrels(np.arange(3), np.arange(3), np.ones(3, np.int64))},
        dropped=Dropped(),
    )
    sorted_keys._PERSIST_ROWS = 0
    store = Store.create(folder / "store")
    large, small = HashEncoder(8), HashEncoder(4, seed="s")
    for dtype in ("int8", "float16", "float32"):
        some = texts._replace(doc_ids=texts.doc_ids[:8], doc_texts=texts.doc_texts[:8])
        part = some if dtype == "int8" else texts
        config = EmbedConfig(dtype=dtype, align_documents=5)
        embed_collection(store, part, large=large, small=small, config=config)
    compact(store, dtype="float16")
    config = EmbedConfig(dtype="float32", align_documents=12)
    embed_collection(store, texts, large=large, small=small, config=config)
    from era_cache.store.sync import pack

    pack(store.path, folder / "pack.tar")
    _build_adapter(folder / "adapter")


def _build_adapter(folder: Path) -> None:
    import torch

    from era_cache.fitting.adapter import Adapter, Hidden, References
    from era_cache.fitting.adapter_config import AdapterConfig, Metrics
    from era_cache.fitting.adapter_folder import save_adapters

    table = References("large", torch.ones(5, 8), torch.ones(5, 4), 0.05, 0.5, 2)
    layer = Hidden(torch.ones(3, 12), torch.zeros(3), torch.ones(4, 3))
    adapters = {
        "small": Adapter(("small",), torch.eye(4)),
        "era": Adapter(("large",), torch.ones(4, 8), torch.zeros(4), references=(table,)),
        "era-dual": Adapter(("small", "large"), torch.ones(4, 12), None, layer, (table, table)),
    }
    values = {f"{name}.0": np.ones(6, dtype=np.float32) for name in adapters}
    config = AdapterConfig(chosen="era", dimensions={"large": 8, "small": 4})
    save_adapters(folder, adapters, config, Metrics(), "card", values)


# One case


def _damage(folder: Path, rng: random.Random, kind: str) -> Path:
    """Damage one file of a fresh copy; returns it under its final name."""
    if kind == "pack":
        path = folder / "pack.tar"
    else:
        root = folder / kind
        path = rng.choice(sorted(p for p in root.rglob("*") if p.is_file()))
    data = mutated(path.read_bytes(), rng)
    if path.parent.name in ("segments", "retired") and path.suffix == ".h5" and rng.random() < 0.7:
        path.unlink()
        path = path.with_name(f"{hashlib.sha256(data).hexdigest()}.h5")
    path.write_bytes(data)
    return path


def _commands(folder: Path, rng: random.Random, kind: str) -> list[str]:
    store, out = str(folder / "store"), folder / "out"
    out.mkdir()
    if kind == "pack":
        return ["unpack", str(folder / "pack.tar"), str(out / "store")]
    encoder = rng.choice(["hash-8", "hash-4"])
    return rng.choice(
        [
            ["ls", store],
            ["info", store],
            ["verify", store, "--json"],
            ["verify", store, "--quarantine"],
            ["diff", store, str(folder / "sound")],
            ["merge", str(out / "store"), store],
            ["merge", store, str(folder / "sound")],
            ["pack", store, str(out / "pack.tar")],
            ["compact", store],
            ["gc", store, "--grace", "0", "--unreferenced", "--old-versions"],
            ["export", store, encoder, "fuzz", "--out", str(out / "x.npy"), "--skip-missing"],
            ["export", store, encoder, "--all", "--out", str(out / "x.npy")],
        ]
    )


def _load_adapter(folder: Path) -> None:
    import torch

    from era_cache.fitting.adapter_folder import load_adapter, load_config, load_held_out

    config = load_config(folder)
    for name in config.candidates:
        adapter = load_adapter(folder, name)
        d_out, d_in = adapter.weight.shape
        widths = {"small": d_out, "large": d_in - d_out * ("small" in adapter.views)}
        mapped = adapter.apply({view: torch.ones(2, widths[view]) for view in adapter.views})
        if not torch.isfinite(mapped).all():
            raise AssertionError("a mapped query is not finite")
    load_held_out(folder, [f"{name}.0" for name in config.candidates])


def _run_case(folder: Path, rng: random.Random, kind: str) -> str:
    """Run one command; returns its outcome: ok, refused, or what went wrong."""
    from era_cache.cli.store import main
    from era_cache.errors import EraError

    damaged = _damage(folder, rng, kind)
    arguments = ["load", kind] if kind == "adapter" else _commands(folder, rng, kind)
    what = f"{' '.join(arguments[:1])} with damaged {damaged.relative_to(folder)}"
    start, shown = time.monotonic(), io.StringIO()
    signal.alarm(HANG_SECONDS)
    try:
        with _silence() as shown:
            if kind == "adapter":
                _load_adapter(folder / "adapter")
            else:
                main.main(arguments, standalone_mode=False)
        outcome = "ok"
    except click.ClickException as error:
        shown.write(error.format_message())
        outcome = "refused"
    except EraError:
        outcome = "refused"
    except SystemExit as error:
        outcome = "refused" if error.code in (0, 1, 2) else f"exit {error.code}: {what}"
    except HangError:
        outcome = f"hang: {what}"
    except BaseException as error:  # noqa: BLE001  what this harness looks for
        outcome = f"traceback {error!r}: {what}"
    finally:
        signal.alarm(0)
    if not shown.getvalue().replace("\n", "").isprintable():
        outcome = f"obeyed: {what}"
    if time.monotonic() - start > HANG_SECONDS:
        outcome = f"slow: {what}"
    return outcome


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Give what a command would show."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        yield shown


class _Watch:
    """Audit hook that notes each file touched outside one folder."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.found: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or (event != "open" and event not in _CHANGES):
            return
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        for path in paths:
            if isinstance(path, int) or path is None:
                continue
            parent = ""
            if event in ("os.remove", "os.rmdir", "os.mkdir") and arguments[-1] >= 0:
                parent = os.readlink(f"/proc/self/fd/{arguments[-1]}")  # noqa: PTH115
            text = os.path.abspath(Path(parent, os.fsdecode(path)))  # noqa: PTH100
            reading = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
            allowed = (*_LIBRARIES, *_SYSTEM) if reading else ("/dev/null",)
            if not text.startswith((self.folder, *allowed)):
                self.found.append(f"{event} {text}")


def _on_alarm(_number: int, _frame: object) -> None:
    raise HangError


def work(base: Path, first: int, last: int, seed: int, log: Path) -> None:
    """Run cases in this process, writing each one's number before it and its outcome after it."""
    import torch  # noqa: F401  what loading it takes is no case's time

    signal.signal(signal.SIGALRM, _on_alarm)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    watch = _Watch()
    kinds = ["store"] * 8 + ["pack"] * 2 + ["adapter"]
    with log.open("a", encoding="utf-8", buffering=1) as file:
        for number in range(first, last):
            rng = random.Random(f"{seed}/{number}")
            kind = rng.choice(kinds)
            folder = Path(tempfile.mkdtemp(dir=base.parent))
            shutil.copytree(base, folder, dirs_exist_ok=True)
            shutil.copytree(base / "store", folder / "sound")
            file.write(f"{number} start\n")
            tempfile.tempdir = watch.folder = str(folder)
            outcome = _run_case(folder, rng, kind)
            watch.folder = None
            if watch.found:
                outcome = f"outside: {watch.found[:3]}"
                watch.found.clear()
            file.write(f"{number} {outcome}\n")
            shutil.rmtree(folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        file.write(f"peak {peak}\n")


# All of them


def _supervise(base: Path, first: int, last: int, seed: int, log: Path) -> None:
    """Start a process for a range of cases, and another one where it dies."""
    while first < last:
        # -B: what Python compiles on first use would count as files written outside.
        command = [sys.executable, "-B", "-m", "benchmarks.fuzz", "--child", str(base), str(log)]
        numbers = ["--first", str(first), "--cases", str(last - first), "--seed", str(seed)]
        code = subprocess.run([*command, *numbers], check=False).returncode
        if code == 0:
            return
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        started = [int(line.split()[0]) for line in lines if line.endswith(" start")]
        died = started[-1] if started else first
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{died} crash: exit status {code}\n")
        first = died + 1


def run(cases: int, seed: int, workers: int) -> list[Bar]:
    """Run all cases and give the bars."""
    from concurrent.futures import ThreadPoolExecutor

    fast = Path("/dev/shm")  # a folder in memory, where there is one
    where = fast if fast.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as temporary:
        base = Path(temporary) / "base"
        base.mkdir()
        build(base)
        cuts = [cases * n // workers for n in range(workers + 1)]
        logs = [Path(temporary) / f"log-{n}" for n in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            list(
                pool.map(
                    lambda n: _supervise(base, cuts[n], cuts[n + 1], seed, logs[n]),
                    range(workers),
                )
            )
        lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    peak = max([int(line.split()[1]) for line in lines if line.startswith("peak")] or [0])
    outcomes = [line.split(" ", 1) for line in lines if not line.startswith("peak")]
    told = [(number, outcome) for number, outcome in outcomes if outcome != "start"]
    counts = Counter(outcome.split(":")[0].split(" ")[0] for _, outcome in told)
    wrong = [(number, outcome) for number, outcome in told if outcome not in ("ok", "refused")]
    for number, outcome in wrong[:20]:
        click.echo(f"case {number} (seed {seed}): {outcome}", err=True)
    bad = {name: counts[name] for name in _WRONG}
    shown = f"{counts['ok']:,} read, {counts['refused']:,} refused"
    broken = bad["traceback"] + bad["crash"] + bad["exit"]
    return [
        Bar("damaged files tried", f"{cases:,}", f"{len(told):,}: {shown}", len(told) == cases),
        Bar("tracebacks and crashes", "0", str(broken), broken == 0),
        Bar("longer than 5 s", "0", str(bad["hang"] + bad["slow"]), not bad["hang"] + bad["slow"]),
        Bar("peak memory", "< 512 MiB", f"{peak / (1 << 20):.0f} MiB", peak < MOST_BYTES),
        Bar("unprintable on a terminal", "0", str(bad["obeyed"]), bad["obeyed"] == 0),
        Bar("files touched outside", "0", str(bad["outside"]), bad["outside"] == 0),
    ]


@click.command()
@click.option("--cases", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--quick", is_flag=True, help="1,000 cases, under a minute.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--first", default=0, hidden=True)
@click.option("--child", nargs=2, type=click.Path(path_type=Path), hidden=True)
def main(
    cases: int,
    seed: int,
    workers: int,
    quick: bool,
    as_json: bool,
    first: int,
    child: tuple[Path, Path] | None,
) -> None:
    """Damage files and see that every command refuses or survives them."""
    if child is not None:
        work(child[0], first, first + cases, seed, child[1])
        return
    finish(run(1000 if quick else cases, seed, workers), as_json=as_json)


if __name__ == "__main__":
    main()
