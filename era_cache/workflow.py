"""The step behind ``era-eval``: from a store and an adapter folder to an evaluation record.

In: an open store, a folder that ``fitting`` wrote. Out: the record that every report shows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.adapters import check_fingerprints, load_adapter, load_config
from era_cache.choose import CANDIDATES
from era_cache.collections import Collection, text_keys
from era_cache.config import SplitConfig
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
from era_cache.fitting import environment
from era_cache.judging import PRIMARY
from era_cache.maps import Adapter
from era_cache.measures import Measure
from era_cache.pairs import Encoders, QuerySet, load_held_out, resolve_device
from era_cache.splits import Split, make_split
from era_cache.store import Store

__all__ = ["Evaluation", "evaluate_folder", "int8_notes"]

_CANDIDATE_ORDER = (*CANDIDATES, "large")


class Evaluation(NamedTuple):
    """What ``evaluate_folder`` found: the JSON record, and the rankings behind it."""

    record: dict[str, Any]
    scored: dict[str, Scored]
    queries: QuerySet
    doc_ids: list[str]


def evaluate_folder(
    store: Store,
    folder: Path,
    *,
    collection_name: str | None = None,
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
        collection_name: of the collection to measure on, where the adapter was fitted on several
            or on another; None where it was fitted on one.
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
    collection, split, encoders = _fitted_on(store, folder, config, collection_name)
    where = resolve_device(device)
    data = load_held_out(collection, split, encoders, device=where, check=check)
    measures = list(dict.fromkeys([PRIMARY, *measures]))
    adapters = {name: load_adapter(folder, name) for name in config["candidates"]}
    for other in others:
        name, adapter = _other(store, other, config, collection_name, taken=adapters)
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
        curve=_curve(store, folder, config, collection_name, data, table, seed, len(split.train)),
        costs=_costs(metrics, time.monotonic() - start, config, len(data.queries.ids)),
        commands=list(commands),
        notes=_notes(
            data.queries,
            int(metrics.get("judging_queries", len(split.validation))),
            large is not None,
        ),
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
    store: Store, folder: Path, config: Mapping[str, Any], wanted: str | None = None
) -> tuple[Collection, Split, Encoders]:
    """The collection, split and encoders that an adapter names, checked against the store.

    A collection that it does not name is split by the adapter's rule; nothing of it was fitted on.
    """
    if config.get("encoders") == {}:
        raise FingerprintError(
            f"{folder}: fitted on arrays, so that no encoder or split is recorded and no store can "
            "be compared with it. Measure it in Python: era_cache.api.RetrievalAdapter.load, then "
            ".evaluate."
        )
    try:
        known = {
            _text(entry["collection"]["name"]): (
                _text(entry["collection"]["digest"]),
                _recorded_split(entry["split"]),
                _text(entry["split"]["test_digest"]),
            )
            for entry in config.get("collections", [config])
        }
        sides = {side: str(config["encoders"][side]["fingerprint"]) for side in Encoders._fields}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{folder / 'config.json'}: incomplete: {error!r}.") from error
    if wanted is None and len(known) != 1:
        raise InputError(
            f"{folder} was fitted on several collections ({', '.join(known)}); name the one to "
            "measure on with --collection."
        )
    name = next(iter(known)) if wanted is None else wanted
    if name not in known:  # perhaps by its version
        name = next((n for n, (d, *_) in known.items() if name == f"{n}-{d[:12]}"), name)
    if name in known:
        digest, split_config, test_digest = known[name]
        collection = store.collection(f"{name}-{digest[:12]}")
        split = make_split(collection, split_config)
        if collection.digest != digest or split.test_digest(collection) != test_digest:
            raise FingerprintError(
                f"{folder}: fitted on another version or split of {collection.name}; its test "
                "queries may be among this one's training queries. Fit again."
            )
    else:
        collection = store.collection(name)
        if collection.name in known:
            raise FingerprintError(
                f"{folder}: fitted on version {known[collection.name][0][:12]} of "
                f"{collection.name}; queries of {name} may be among its training queries."
            )
        split = _unseen(store, collection, known)
    encoders = Encoders(**{side: store.encoder(print_) for side, print_ in sides.items()})
    return collection, split, encoders


def _unseen(
    store: Store, collection: Collection, known: Mapping[str, tuple[str, SplitConfig, str]]
) -> Split:
    """Test queries of a collection that was not fitted on, less those whose text was trained on."""
    split = make_split(collection, next(iter(known.values()))[1])
    test = split.test
    for name, (digest, config, _) in known.items():
        if digest[:12] not in store.versions(name):
            continue
        fitted = store.collection(f"{name}-{digest[:12]}")
        seen = make_split(fitted, config)
        rows = np.concatenate([seen.train, seen.validation])
        test = test[~np.isin(text_keys(collection)[test], text_keys(fitted)[rows])]
    return split._replace(train=split.train[:0], validation=split.validation[:0], test=test)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _recorded_split(recorded: Mapping[str, Any]) -> SplitConfig:
    """Read a split from ``config.json``, which anyone may have edited."""
    config = SplitConfig(
        rule=str(recorded["rule"]),
        seed=int(recorded["seed"]),
        labels=float(recorded["labels"]),
        test=float(recorded["test"]),
        validation=float(recorded["validation"]),
        count=int(recorded.get("count", 0)),
    )
    shares = (config.labels, config.test, config.validation)
    if min(config.seed, config.count) < 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"impossible {config}")
    return config


def _other(
    store: Store,
    folder: Path,
    config: Mapping[str, Any],
    wanted: str | None,
    *,
    taken: Mapping[str, Adapter],
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
    _fitted_on(store, folder, other, wanted)
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
    wanted: str | None,
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
        _, split, _ = _fitted_on(store, path.parent, other, wanted)
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
    chosen = config["candidates"][config["chosen"]]
    shape = chosen["shape"]
    kept = sum(table["entries"] for table in chosen.get("references", []))
    return [
        {"what": "alignment", "value": f"{spent.get('align', 0.0):.2f} s"},
        {"what": "training, all candidates", "value": f"{trained:.1f} s"},
        {"what": f"evaluation, {queries} test queries", "value": f"{seconds:.1f} s"},
        {
            "what": "adapter",
            "value": f"{shape[0]} x {shape[1]}" + (f", {kept:,} references" if kept else ""),
        },
        {"what": "documents encoded again", "value": "0"},
    ]


def _notes(queries: QuerySet, judging: int, has_large: bool) -> list[str]:
    notes = [
        "Intervals are 95 % bootstrap intervals over test queries; p values are of the paired "
        "randomisation test against small, corrected over candidates by Holm's method.",
        "Rankings keep the first 1,000 documents; ties go by document id as in trec_eval.",
    ]
    if not has_large:
        notes.append("No row 'large': era-embed --large-corpus stores what it needs.")
    for name, number in (("test", len(queries.ids)), ("judging", judging)):
        if number < 50:
            notes.append(f"Only {number} {name} queries: differences of a few points are noise.")
    return notes
