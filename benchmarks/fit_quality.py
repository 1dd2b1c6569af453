"""Quality of fitting on the development collections: one record for each fit, kept in a file.

    python -m benchmarks.fit_quality --pair demo

A record holds test nDCG@10 of every candidate, of the paper's recipe and, for some splits, of the
peers. A run goes on where another stopped, several may run at once on other collections, and
``benchmarks.fit`` reads what is there, after it has made two records again and found them equal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from demo_models import demo_models_dir

from benchmarks.fit_data import PAIRS, Pair, available, problem
from benchmarks.peers.problem import Problem
from benchmarks.peers.run import PEERS, run_peer
from benchmarks.peers.setup import environment_error
from era_cache.evaluate.score import score_adapters, score_large
from era_cache.evaluate.statistics import paired_randomisation_test
from era_cache.fitting.choice import choose
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import fit_candidates, fit_paper
from era_cache.fitting.tensors import FitData, HeldOut
from era_cache.rank.corpus import whole
from era_cache.rank.measures import evaluate

__all__ = ["PEER_NAMES", "RATIOS", "SEEDS", "Kept", "check", "one_thread", "records", "run"]

RATIOS = (0.05, 0.1, 0.2, 0.4)
SEEDS = (42, 43, 44, 45, 46)
PEER_NAMES = (
    "rebasis",
    "ridge",
    "ridge_labels",
    "llamaindex",
    "llamaindex_tuned",
    "search_adaptor",
)
VERSIONS = {"ours": "9", "strict": "8", "paper": "1", "peers": "1"}
"""Of what makes each kind of record; raised where results change."""
CHECKED = (("gorilla-torch", 0.05), ("theoremqa", 0.2))
"""Records that ``check`` makes again."""


def _path(name: str = "fit") -> Path:
    return demo_models_dir().parent / "benchmarks" / f"{name}.jsonl"


class Kept:
    """Records of another benchmark in a file of their own: key (a tuple of JSON values) to record.

    ``code`` is raised where results change; records of other codes are passed over.
    """

    def __init__(self, name: str, code: str) -> None:
        self._name, self._code = name, code

    def read(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Everything kept so far."""
        path = _path(self._name)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = (json.loads(line) for line in lines)
        return {tuple(one["key"]): one["record"] for one in kept if one["code"] == self._code}

    def keep(self, key: tuple[Any, ...], record: dict[str, Any]) -> None:
        """Add a record."""
        _append(_path(self._name), {"key": key, "code": self._code, "record": record})


def records() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Records of the present code: (kind, pair, collection, labels, seed) to the record."""
    found = {}
    path = _path()
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        record = json.loads(line)
        if record["code"] == VERSIONS[record["kind"]]:
            key = (record["kind"], record["pair"], record["collection"])
            found[(*key, record["labels"], record["seed"])] = record
    return found


def _append(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record) + "\n")


def _ours(data: FitData, held_out: HeldOut, config: FitConfig) -> dict[str, Any]:
    result = fit_candidates(data, config)
    adapters = {name: fit.adapter for name, fit in result.candidates.items()}
    scored = {
        n: s.values[PRIMARY] for n, s in score_adapters(held_out, adapters, [PRIMARY]).items()
    }
    large = score_large(held_out, [PRIMARY])
    test = {name: float(values.mean()) for name, values in scored.items()}
    if large is not None:
        test["large"] = float(large.values[PRIMARY].mean())
    shipped = choose(result.candidates).name
    harm = 1.0
    if shipped != "small" and test[shipped] < test["small"]:
        harm = paired_randomisation_test(scored[shipped], scored["small"], seed=0)
    return {
        "test": test,
        "held_out": {name: fit.mean for name, fit in result.candidates.items()},
        "shipped": shipped,
        "p_harm": harm,
        "seconds": result.seconds,
        "options": {name: fit.options for name, fit in result.candidates.items()},
    }


def _paper(data: FitData, held_out: HeldOut, seed: int) -> dict[str, Any]:
    start = time.monotonic()
    result = fit_paper(data, PaperConfig(seed=seed))
    seconds = time.monotonic() - start
    adapters = {"paper": result.candidates["paper"].adapter}
    scored = score_adapters(held_out, adapters, [PRIMARY])["paper"].values[PRIMARY]
    options = result.candidates["paper"].options
    return {"test": {"paper": float(scored.mean())}, "seconds": seconds, "options": options}


def built_peers() -> list[str]:
    """Peers whose environment is there; see benchmarks/peers."""
    return [name for name in PEER_NAMES if environment_error(PEERS[name].environment) is None]


def _all_ran(record: dict[str, Any]) -> bool:
    """Whether no peer was built since."""
    return set(built_peers()) <= {*record["test"], *record["errors"]}


def _peers(data: FitData, held_out: HeldOut) -> dict[str, Any]:
    def triples(qrels: Any) -> np.ndarray:
        return np.stack([qrels.query_rows, qrels.doc_rows, qrels.relevance], axis=1)

    test, seconds, errors = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        Problem(
            train_queries=data.train.views["large"].numpy(),
            val_queries=data.validation.views["large"].numpy(),
            test_queries=held_out.queries.views["large"].numpy(),
            corpus=whole(data.corpus).numpy(),
            align_large=data.align_large.numpy(),
            align_small=data.align_small.numpy(),
            train_qrels=triples(data.train.qrels),
            val_qrels=triples(data.validation.qrels),
        ).save(path)
        for name in built_peers():
            found = run_peer(name, path, torch.get_num_threads())
            if found.mapped is None:
                errors[name] = found.error
                continue
            mapped = torch.from_numpy(found.mapped)
            rows = torch.topk(
                mapped @ whole(data.corpus).T, min(10, len(data.corpus)), dim=1
            ).indices
            values = evaluate(rows.numpy(), held_out.queries.qrels, [PRIMARY], len(data.corpus))
            test[name] = float(values[PRIMARY].mean())
            seconds[name] = found.seconds
    return {"test": test, "seconds": seconds, "errors": errors}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Rounding depends on the number of threads, and can move a choice."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run(
    pair: str,
    names: Sequence[str],
    ratios: Sequence[float],
    seeds: Sequence[int],
    kinds: Sequence[str],
) -> None:
    """Make the records that are missing.

    Args:
        pair: a name from ``PAIRS``.
        names: collections.
        ratios: shares of the labels.
        seeds: of the split.
        kinds: ``ours``, ``strict`` (validation labels choose but never train), ``paper``,
            ``peers``.
    """
    with one_thread():
        for seed in seeds:
            for name in names:
                for labels in ratios:
                    for kind in kinds:
                        known = records().get((kind, pair, name, labels, seed))
                        if known is not None and (kind != "peers" or _all_ran(known)):
                            continue
                        data, held_out, _ = problem(name, PAIRS[pair], labels, seed)
                        if kind == "paper":
                            found = _paper(data, held_out, seed)
                        elif kind == "peers":
                            found = _peers(data, held_out)
                        else:
                            config = dataclasses.replace(FitConfig(), refit=kind == "ours")
                            found = _ours(data, held_out, config)
                        key = {"kind": kind, "pair": pair, "collection": name}
                        _append(
                            _path(),
                            {
                                **key,
                                "labels": labels,
                                "seed": seed,
                                "code": VERSIONS[kind],
                                **found,
                            },
                        )
                        shown = {k: round(100 * v, 1) for k, v in found["test"].items()}
                        click.echo(
                            f"{pair} {name} {labels:.0%} seed {seed} {kind}: {shown}", err=True
                        )


def check(pair: str, seed: int, known: Mapping[tuple[Any, ...], dict[str, Any]]) -> str:
    """Make some records again; says which of those kept the present code no longer gives."""
    stale = []
    with one_thread():
        for name, labels in CHECKED:
            for kind in ("ours", "paper"):
                kept = known.get((kind, pair, name, labels, seed))
                if kept is None:
                    continue
                data, held_out, _ = problem(name, PAIRS[pair], labels, seed)
                made = (
                    _paper(data, held_out, seed)
                    if kind == "paper"
                    else _ours(data, held_out, FitConfig())
                )
                gap = max(abs(made["test"][n] - value) for n, value in kept["test"].items())
                if gap > 2e-3:
                    stale.append(f"{kind} {name} {labels:.0%} (by {gap:.4f})")
    return ", ".join(stale)


@click.command()
@click.option("--pair", type=click.Choice(list(PAIRS)), default="demo", show_default=True)
@click.option("--collections", default="", help="Comma-separated; all that have vectors.")
@click.option("--labels", default="5,10,20,40", show_default=True, help="In percent.")
@click.option("--seeds", default=",".join(map(str, SEEDS)), show_default=True)
@click.option("--kinds", default="ours,paper", show_default=True)
def main(pair: str, collections: str, labels: str, seeds: str, kinds: str) -> None:
    """Make the records of a pair that are missing."""
    chosen: Pair = PAIRS[pair]
    names = collections.split(",") if collections else available(chosen)
    ratios = [float(share) / 100 for share in labels.split(",")]
    run(pair, names, ratios, [int(seed) for seed in seeds.split(",")], kinds.split(","))


if __name__ == "__main__":
    main()
