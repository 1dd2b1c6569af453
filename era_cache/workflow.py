"""The two steps behind ``era-fit`` and ``era-eval``, as functions.

In: an open store, names, configurations. Out: adapter folders, and evaluation records.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import era_cache
from era_cache.adapters import (
    OWN_FILES,
    Adapter,
    check_fingerprints,
    load_adapter,
    load_config,
    save_adapters,
)
from era_cache.choose import CANDIDATES, FitResult, fit_candidates, fit_paper
from era_cache.collections import Collection
from era_cache.config import FitConfig, PaperConfig, SplitConfig
from era_cache.errors import FingerprintError, FormatError, InputError
from era_cache.evaluate import (
    DEFAULT_MEASURES,
    Scored,
    compare,
    evaluation_record,
    int8_loss,
    score_adapters,
    score_large,
)
from era_cache.files import read_json
from era_cache.measures import Measure
from era_cache.pairs import (
    Encoders,
    QuerySet,
    load_fit_data,
    load_held_out,
    resolve_device,
    resolve_encoders,
)
from era_cache.splits import Split, make_split
from era_cache.store import Store
from era_cache.train import PRIMARY

__all__ = [
    "Evaluation",
    "FitReport",
    "environment",
    "evaluate_folder",
    "fit_to_folder",
    "int8_notes",
]

_CANDIDATE_ORDER = (*CANDIDATES, "large")


class FitReport(NamedTuple):
    """What ``fit_to_folder`` did."""

    folder: Path
    result: FitResult
    split: Split
    encoders: Encoders
    alignment_documents: int
    """How many documents the alignment had; fewer than asked for after an interrupted embed."""
    seconds: float


class Evaluation(NamedTuple):
    """What ``evaluate_folder`` found: the JSON record, and the rankings behind it."""

    record: dict[str, Any]
    scored: dict[str, Scored]
    queries: QuerySet
    doc_ids: list[str]


def environment() -> dict[str, str]:
    """Versions that can change a number."""
    found = {"era_cache": era_cache.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "h5py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def fit_to_folder(
    store: Store,
    collection_name: str,
    folder: Path,
    *,
    split_config: SplitConfig,
    recipe: FitConfig | PaperConfig,
    candidate: str = "auto",
    query_encoder: str | None = None,
    doc_encoder: str | None = None,
    device: str | None = None,
    check: bool = True,
    progress: Callable[[str], None] | None = None,
) -> FitReport:
    """Fit all candidates of a collection and write the adapter folder.

    Args:
        store: where the vectors are.
        collection_name: name, or name and version.
        folder: the adapter folder to write.
        split_config: which queries may be used.
        recipe: the default recipe or the paper's.
        candidate: ``auto`` or a candidate's name.
        query_encoder: the large side, where the store leaves a choice.
        doc_encoder: the small side, likewise.
        device: torch device name; None chooses.
        check: compare the digests of all segments first.
        progress: told the name of each candidate before it is fitted.

    Raises:
        EraError: whatever is wrong, with what to do.
    """
    start = time.monotonic()
    _check_target(folder)
    collection = store.collection(collection_name)
    split = make_split(collection, split_config)
    encoders = resolve_encoders(store, collection, query=query_encoder, document=doc_encoder)
    data = load_fit_data(
        collection,
        split,
        encoders,
        align_documents=recipe.align_documents,
        device=resolve_device(device),
        check=check,
    )
    if isinstance(recipe, PaperConfig):
        result = fit_paper(data, recipe, progress=progress)
    else:
        result = fit_candidates(data, recipe, candidate=candidate, progress=progress)
    config = {
        "collection": {"name": collection.name, "digest": collection.digest},
        "encoders": encoders.record(),
        "split": _split_record(split, collection),
        "alignment_documents": len(data.align_large),
        "recipe": {
            "name": "paper" if isinstance(recipe, PaperConfig) else "era",
            **dataclasses.asdict(recipe),
        },
        "choice_reason": result.choice.reason,
        "environment": environment(),
    }
    metrics = {
        "primary": str(PRIMARY),
        "validation_queries": len(split.validation),
        "candidates": {
            name: {"validation": fit.mean, "options": fit.options}
            for name, fit in result.candidates.items()
        },
        "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
    }
    adapters = {name: fit.adapter for name, fit in result.candidates.items()}
    card = _model_card(result, config, split)
    save_adapters(folder, adapters, result.choice.name, config, metrics, card)
    seconds = time.monotonic() - start
    return FitReport(folder, result, split, encoders, len(data.align_large), seconds)


def _check_target(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: this is a file; an adapter is a folder.")
    names = {path.name for path in folder.iterdir()}
    if names and not names & OWN_FILES:
        raise InputError(
            f"{folder}: holds other files ({sorted(names)[0]}, …). Give a new folder, or one that "
            "holds an adapter to replace."
        )


def _split_record(split: Split, collection: Collection) -> dict[str, Any]:
    return {
        **dataclasses.asdict(split.config),
        "queries": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        "test_digest": split.test_digest(collection),
    }


def _model_card(result: FitResult, config: Mapping[str, Any], split: Split) -> str:
    query, document = config["encoders"]["query"], config["encoders"]["document"]
    rows = "\n".join(
        f"| {name}{' **(chosen)**' if name == result.choice.name else ''} | {fit.mean:.4f} |"
        for name, fit in result.candidates.items()
    )
    return f"""# Retrieval adapter for {config["collection"]["name"]}

Maps queries of **{query["name"]}** (fingerprint `{query["fingerprint"][:12]}`) into the document
space of **{document["name"]}** (fingerprint `{document["fingerprint"][:12]}`). Documents and index
stay as they are. Chosen candidate: **{result.choice.name}** — {result.choice.reason}.

| candidate | validation {PRIMARY} |
|---|---|
{rows}

Fitted on {len(split.train)} training and {len(split.validation)} validation queries
({split.config.labels:.0%} of the labels, split seed {split.config.seed}), aligned on
{config["alignment_documents"]} documents, with ERA Cache {config["environment"]["era_cache"]}. Test
queries took no part. Validation values are optimistic, since they chose the candidate; measure
with `era-eval`.

Use it:

    from pathlib import Path
    from era_cache.adapters import load_adapter
    adapter = load_adapter(Path("this folder"))
    vectors = adapter.apply({{"large": large_queries, "small": small_queries}})

Inputs are float32 tensors (n, d) of the encoders and prompts named in `config.json`. Vectors of
other encoders give wrong results; compare fingerprints with `check_fingerprints`.
"""


def evaluate_folder(
    store: Store,
    folder: Path,
    *,
    others: Sequence[Path] = (),
    measures: Sequence[Measure] = DEFAULT_MEASURES,
    seed: int = 0,
    device: str | None = None,
    check: bool = True,
    int8: bool = False,
    commands: Sequence[str] = (),
) -> Evaluation:
    """Measure every candidate of an adapter folder on the test queries of its split.

    Args:
        store: holds the collection and the vectors it was fitted on.
        folder: the adapter.
        others: further adapter folders of the same collection and split; each adds its chosen
            candidate as a row.
        measures: what to measure; the primary measure is always among them.
        seed: of bootstrap and randomisation.
        device: torch device name; None chooses.
        check: compare the digests of all segments first.
        int8: also measure what storing the vectors as int8 would cost.
        commands: recorded in the report.

    Raises:
        FingerprintError: the store's vectors or collection are not the adapter's.
        EraError: whatever else is wrong.
    """
    start = time.monotonic()
    config = load_config(folder)
    collection, split, encoders = _fitted_on(store, folder, config)
    where = resolve_device(device)
    data = load_held_out(collection, split, encoders, device=where, check=check)
    measures = list(dict.fromkeys([PRIMARY, *measures]))
    adapters = {name: load_adapter(folder, name) for name in config["candidates"]}
    for other in others:
        name, adapter = _other(store, other, config, taken=adapters)
        adapters[name] = adapter
    scored = score_adapters(data, adapters, measures)
    large = score_large(data, measures)
    if large is not None:
        scored["large"] = large
    table = compare(scored, measures, baseline="small", seed=seed)
    metrics = read_json(folder / "metrics.json", "era-metrics", 1)
    record = evaluation_record(
        collection={
            "name": collection.name,
            "version": collection.version,
            "documents": len(collection.doc_ids),
            "queries": len(collection.query_ids),
            "domain": collection.domain,
        },
        split={
            "seed": split.config.seed,
            "labels": split.config.labels,
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        encoders={
            side: f"{e.spec.name} ({e.spec.fingerprint[:12]})"
            for side, e in (("query", encoders.query), ("document", encoders.document))
        },
        measures=[str(measure) for measure in measures],
        primary=str(PRIMARY),
        chosen=config["chosen"],
        choice_reason=config["choice_reason"],
        candidates=_candidate_rows(table, metrics),
        curve=_curve(store, folder, config, data, table, seed, len(split.train)),
        costs=_costs(metrics, time.monotonic() - start, config, len(data.queries.ids)),
        commands=list(commands),
        notes=_notes(data.queries, len(split.validation), large is not None),
        environment=environment(),
    )
    if not record["curve"]:
        del record["curve"]
    if int8:
        record["int8"] = int8_loss(data, adapters, scored, measures, seed=seed)
        record["notes"] += int8_notes(record)
    return Evaluation(record, scored, data.queries, collection.doc_ids)


def int8_notes(record: Mapping[str, Any]) -> list[str]:
    """What int8 storage would cost the baseline and the chosen candidate, one line for each."""
    measure = record["primary"]
    return [
        f"Stored as int8, {name} would measure {row['mean']:.4f} {measure}: "
        f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]."
        for name in dict.fromkeys(("small", record["chosen"]))
        for row in [record["int8"][name][measure]]
    ]


def _fitted_on(
    store: Store, folder: Path, config: Mapping[str, Any]
) -> tuple[Collection, Split, Encoders]:
    """The collection, split and encoders that an adapter names, checked against the store."""
    try:
        wanted, recorded = config["collection"], config["split"]
        name = f"{wanted['name']}-{wanted['digest'][:12]}"
        split_config = _recorded_split(recorded)
        sides = {side: str(config["encoders"][side]["fingerprint"]) for side in Encoders._fields}
        test_digest = recorded["test_digest"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{folder / 'config.json'}: incomplete: {error!r}.") from error
    collection = store.collection(name)
    split = make_split(collection, split_config)
    if collection.digest != wanted["digest"] or split.test_digest(collection) != test_digest:
        raise FingerprintError(
            f"{folder}: fitted on another version or split of {collection.name}; its test queries "
            "may be among this one's training queries. Fit again."
        )
    encoders = Encoders(**{side: store.encoder(print_) for side, print_ in sides.items()})
    return collection, split, encoders


def _recorded_split(recorded: Mapping[str, Any]) -> SplitConfig:
    """Read a split from ``config.json``, which anyone may have edited."""
    config = SplitConfig(
        rule=str(recorded["rule"]),
        seed=int(recorded["seed"]),
        labels=float(recorded["labels"]),
        test=float(recorded["test"]),
        validation=float(recorded["validation"]),
    )
    shares = (config.labels, config.test, config.validation)
    if config.seed < 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"impossible {config}")
    return config


def _other(
    store: Store, folder: Path, config: Mapping[str, Any], *, taken: Mapping[str, Adapter]
) -> tuple[str, Adapter]:
    """The chosen candidate of another folder, which must share collection, split and encoders."""
    other = load_config(folder)
    for part, same in (
        ("collection", other.get("collection") == config["collection"]),
        (
            "test queries",
            other.get("split", {}).get("test_digest") == config["split"]["test_digest"],
        ),
    ):
        if not same:
            raise FingerprintError(f"{folder}: its {part} differ; the two cannot be compared.")
    _fitted_on(store, folder, other)
    check_fingerprints(
        folder, other, {s: e["fingerprint"] for s, e in config["encoders"].items() if s != "align"}
    )
    name = str(other["chosen"])
    if name in taken:
        name = f"{name} ({folder.name})"
    # Folders of one name in different places: neither may replace the other's row.
    same = sum(known == name or known.startswith(f"{name} #") for known in taken)
    return f"{name} #{same + 1}" if same else name, load_adapter(folder)


def _candidate_rows(table: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    def place(name: str) -> int:
        known = name in _CANDIDATE_ORDER
        return _CANDIDATE_ORDER.index(name) if known else len(_CANDIDATE_ORDER)

    known = metrics.get("candidates", {})
    kinds = {**CANDIDATES, "large": "the large encoder on both sides: a full re-encode"}
    return [
        {
            "name": name,
            "kind": kinds.get(name, "another adapter folder"),
            "validation": known.get(name, {}).get("validation"),
            "measures": table[name],
        }
        for name in sorted(table, key=place)
    ]


def _curve(
    store: Store,
    folder: Path,
    config: Mapping[str, Any],
    data: Any,
    table: Mapping[str, Any],
    seed: int,
    train_queries: int,
) -> list[dict[str, Any]]:
    """The label-efficiency curve: this folder's point and those under ``curve/``."""

    def point(labels: float, train: int, entries: Mapping[str, Any]) -> dict[str, Any]:
        shown = {
            name: {key: entry[str(PRIMARY)][key] for key in ("mean", "low", "high")}
            for name, entry in entries.items()
        }
        return {"labels": labels, "train": train, "candidates": shown}

    points = []
    for path in sorted((folder / "curve").glob("*/config.json")):
        other = load_config(path.parent)
        if other["split"].get("labels") == config["split"]["labels"]:
            continue
        if any(other.get(part) != config[part] for part in ("collection", "recipe")):
            raise FingerprintError(
                f"{path.parent}: fitted on another collection or with another recipe than "
                f"{folder}. Remove it, or fit again with --curve."
            )
        _, split, _ = _fitted_on(store, path.parent, other)
        if other["split"]["test_digest"] != config["split"]["test_digest"]:
            raise FingerprintError(
                f"{path.parent}: has other test queries than {folder}; fit again."
            )
        check_fingerprints(
            path.parent, other, {s: e["fingerprint"] for s, e in config["encoders"].items()}
        )
        adapters = {name: load_adapter(path.parent, name) for name in other["candidates"]}
        entries = compare(
            score_adapters(data, adapters, [PRIMARY]), [PRIMARY], baseline="small", seed=seed
        )
        points.append(point(split.config.labels, len(split.train), entries))
    if points:
        points.append(point(config["split"]["labels"], train_queries, table))
    return sorted(points, key=lambda p: p["labels"])


def _costs(
    metrics: Mapping[str, Any], seconds: float, config: Mapping[str, Any], queries: int
) -> list[dict[str, str]]:
    spent = metrics.get("seconds", {})
    trained = sum(value for name, value in spent.items() if name != "align")
    shape = config["candidates"][config["chosen"]]["shape"]
    return [
        {"what": "alignment", "value": f"{spent.get('align', 0.0):.2f} s"},
        {"what": "training, all candidates", "value": f"{trained:.1f} s"},
        {"what": f"evaluation, {queries} test queries", "value": f"{seconds:.1f} s"},
        {"what": "adapter", "value": f"{shape[0]} x {shape[1]}, {shape[0] * shape[1] * 4:,} bytes"},
        {"what": "documents encoded again", "value": "0"},
    ]


def _notes(queries: QuerySet, validation: int, has_large: bool) -> list[str]:
    notes = [
        "Intervals are 95 % bootstrap intervals over test queries; p values are of the paired "
        "randomisation test against small, corrected over candidates by Holm's method.",
        "Rankings keep the first 1,000 documents; ties go by document id as in trec_eval.",
    ]
    if not has_large:
        notes.append("No row 'large': era-embed --large-corpus stores what it needs.")
    for name, number in (("test", len(queries.ids)), ("validation", validation)):
        if number < 50:
            notes.append(f"Only {number} {name} queries: differences of a few points are noise.")
    return notes
