"""Build the tool-retrieval collection "bfcl" from the Berkeley Function Calling Leaderboard.

    pip install --no-deps bfcl-eval
    python data/recipes/bfcl.py collections/bfcl

In: the data of the Python package ``bfcl-eval`` (Apache-2.0), as read by ``bfcl_source``.
Out: a folder in BEIR layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/all.tsv``, ``meta.json``.

A document is one distinct function card (name, description, parameters); cards of entries without
an answer are distractors. A query is one distinct request text.

Which cards are relevant to a request:

- grade 2: the cards offered with it whose name the answer calls;
- grade 1, "twins" of those: cards of the same name and, after folding case and white space, the
  same description. They are the same function with its parameters spelled differently;
- nothing else. The same name with another description is another function: 519 of the 1,853 names
  carry more than one card, among them 47 ``requests.get`` that wrap different services, and calling
  all of them relevant would reward a search that only reads names.

For binary measures, grades of 1 and above are positive.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from bfcl_source import PACKAGE, Reading, find_installed, read_folder

from era_cache.disk.files import os_errors, write_bytes
from era_cache.errors import EraError, InputError, StoreError

__all__ = ["BfclCounts", "build_bfcl"]

BUILDER = "era-cache bfcl v1"
_RULE = (
    "grade 2: cards offered with the request whose name its answer calls; "
    "grade 1: cards of the same name and, after folding case and white space, "
    "the same description; grades >= 1 are positive"
)

_Json = dict[str, object]


class BfclCounts(NamedTuple):
    """What was read, and what was written (after the cut, where there is one)."""

    files: int
    """Files with functions; ``skipped_files`` are those of other kinds."""
    skipped_files: int
    functions_read: int
    requests_read: int
    """Requests with an answer; ``requests_read - merged_requests`` texts are distinct."""
    merged_requests: int
    unanswered_requests: int
    empty_requests: int
    replaced_characters: int
    """Lone surrogates and bytes that are not UTF-8, now U+FFFD."""
    documents: int
    queries: int
    judgements: int
    """Grades 1 and 2 together; ``twin_judgements`` are those of grade 1."""
    twin_judgements: int


def build_bfcl(
    out_dir: Path,
    *,
    source: Path | None = None,
    limit_functions: int | None = None,
    seed: int = 42,
) -> BfclCounts:
    """Build the collection, or leave it as it is if ``out_dir`` holds just that already.

    Args:
        out_dir: folder to make. One that this builder made is replaced.
        source: ``bfcl_eval/data`` of an unpacked package; by default that of the installed one.
        limit_functions: keep about this many documents: those of queries drawn at random, until
            they are at least half, then random others. Queries that were not drawn are dropped.
        seed: of that draw; without a limit nothing is random.

    Returns:
        Counts of what was read and written.

    Raises:
        InputError: the package is absent or its data unusable, or ``out_dir`` holds something else.
        StoreError: the folder cannot be written.
        ValueError: ``limit_functions`` is below 1.
    """
    if limit_functions is not None and limit_functions < 1:
        raise ValueError(f"limit_functions must be at least 1, got {limit_functions}")
    version = None
    if source is None:
        source, version = find_installed()
    reading = read_folder(source)
    grades = _grade(reading)
    doc_rows, query_rows = list(range(len(reading.cards))), list(range(len(grades)))
    cut: _Json | None = None
    if limit_functions is not None and limit_functions < len(doc_rows):
        doc_rows, query_rows = _cut(grades, len(doc_rows), limit_functions, seed)
        cut = {"limit_functions": limit_functions, "seed": seed}
    given = [grade for row in query_rows for grade in grades[row].values()]
    counts = BfclCounts(
        **{name: reading.tally[name] for name in BfclCounts._fields[:8]},
        documents=len(doc_rows),
        queries=len(query_rows),
        judgements=len(given),
        twin_judgements=given.count(1),
    )
    meta: _Json = {
        "name": "bfcl",
        "domain": "code/API",
        "source": f"Berkeley Function Calling Leaderboard v4, Python package {PACKAGE}",
        "package_version": version,
        "licence": "Apache-2.0",
        "labels": "graded",
        "rule": _RULE,
        "cut": cut,
        "counts": counts._asdict(),
        "builder": BUILDER,
    }
    _publish(out_dir, _render(reading, grades, doc_rows, query_rows, meta))
    return counts


def _grade(reading: Reading) -> list[dict[int, int]]:
    """Give each request its judgements: document row to grade, rows ascending."""
    twins: dict[tuple[str, str], list[int]] = {}
    for row, card in enumerate(reading.cards):
        twins.setdefault(card.twin_key, []).append(row)
    grades = []
    for request in reading.requests.values():
        keys = {reading.cards[row].twin_key for row in request.doc_rows}
        rows = sorted(row for key in keys for row in twins[key])
        grades.append({row: 2 if row in request.doc_rows else 1 for row in rows})
    return grades


def _cut(
    grades: list[dict[int, int]], n_documents: int, limit: int, seed: int
) -> tuple[list[int], list[int]]:
    """Draw ``limit`` documents and the queries they answer; both come back in reading order."""
    rng = np.random.default_rng(seed)
    kept: set[int] = set()
    query_rows: list[int] = []
    for query_row in rng.permutation(len(grades)).tolist():
        if 2 * len(kept) >= limit:
            break
        wider = kept | grades[query_row].keys()
        if len(wider) <= limit:
            kept = wider
            query_rows.append(query_row)
    if not query_rows:
        raise InputError(f"no request has at most {limit} relevant functions: raise the limit.")
    others = (row for row in rng.permutation(n_documents).tolist() if row not in kept)
    kept.update([row for row, _ in zip(others, range(limit - len(kept)), strict=False)])
    return sorted(kept), sorted(query_rows)


def _render(
    reading: Reading,
    grades: list[dict[int, int]],
    doc_rows: list[int],
    query_rows: list[int],
    meta: _Json,
) -> dict[str, bytes]:
    """Turn the collection into file contents by relative path, the digest of them in the meta."""
    requests = list(reading.requests.values())
    cards = [reading.cards[row] for row in doc_rows]
    files = {
        "corpus.jsonl": _json_lines(
            {"_id": card.doc_id, "title": card.name, "text": card.text} for card in cards
        ),
        "queries.jsonl": _json_lines(
            {"_id": requests[row].query_id, "text": requests[row].text} for row in query_rows
        ),
        "qrels/all.tsv": "query-id\tcorpus-id\tscore\n"
        + "".join(
            f"{requests[query_row].query_id}\t{reading.cards[row].doc_id}\t{grade}\n"
            for query_row in query_rows
            for row, grade in grades[query_row].items()
        ),
    }
    digest = hashlib.blake2b(digest_size=16)
    for name, text in {**files, "": json.dumps(meta)}.items():
        digest.update(f"{name}\n{len(text)}\n{text}".encode())
    meta = {**meta, "digest": digest.hexdigest()}
    files["meta.json"] = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
    return {name: text.encode() for name, text in files.items()}


def _json_lines(records: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _publish(out_dir: Path, files: dict[str, bytes]) -> None:
    """Put the files in place as one folder; nobody ever sees a part of it there."""
    place = out_dir.resolve()
    if place.exists():
        _check_ours(place, set(files))
        with os_errors("reading the collection", place):
            if all((place / name).read_bytes() == text for name, text in files.items()):
                return
    stage = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}")
    old = stage.with_name(f"{stage.name}.old")
    try:
        with os_errors("writing the collection", place):
            for name, content in files.items():
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(stage / name, content)
            if place.exists():
                place.rename(old)
            stage.rename(place)
    except StoreError:
        if old.exists():
            with contextlib.suppress(OSError):
                old.rename(place)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _check_ours(place: Path, names: set[str]) -> None:
    """Refuse to touch a folder unless this builder made it and nobody added to it."""
    try:
        meta = json.loads((place / "meta.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        meta = None
    ours = isinstance(meta, dict) and meta.get("builder") == BUILDER
    found = {str(p.relative_to(place)) for p in place.rglob("*") if not p.is_dir()} if ours else {}
    if not ours or found != names:
        raise InputError(
            f"{place} exists and is not (only) a collection made by this builder. "
            "Name another folder, or move that one away."
        )


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep about N functions, for quick runs; all by default.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=42,
    show_default=True,
    help="Seed of the draw that --limit makes.",
)
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder bfcl_eval/data of an unpacked package, instead of the installed one.",
)
def main(out: Path, limit: int | None, seed: int, source: Path | None) -> None:
    """Build the collection "bfcl" in the folder OUT and print its path.

    Documents are function cards of the Berkeley Function Calling Leaderboard, queries are users'
    requests, in BEIR layout. Needs: pip install --no-deps bfcl-eval
    """
    try:
        counts = build_bfcl(out, source=source, limit_functions=limit, seed=seed)
    except EraError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{counts.documents} documents, {counts.queries} queries, {counts.judgements} judgements",
        err=True,
    )
    click.echo(out)


if __name__ == "__main__":
    main()
