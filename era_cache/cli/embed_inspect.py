"""``era-embed inspect``: what is in a collection, before anything is encoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    OutFolder,
    PathArgument,
    echo_json,
    echo_table,
    json_option,
    note,
    say,
    version_option,
)
from era_cache.cli.text_options import (
    collection_options,
    each_collection,
    plain_options,
    read_texts,
)

if TYPE_CHECKING:
    from era_cache.collection.inspection import Inspection
    from era_cache.collection.records import TextCollection
    from era_cache.types import IntArray

__all__ = ["inspect"]

_MOST_COUNTED = 20_000


@click.command(cls=EraCommand)
@click.argument("collection", type=PathArgument)
@click.option("--query-model", help="Also say how many queries this model would cut off.")
@click.option("--doc-model", help="The same of documents.")
@click.option("--out", type=OutFolder(), help="Folder for NAME.html, NAME.csv and NAME.json.")
@plain_options
@collection_options
@json_option
@version_option
def inspect(collection: Path, as_json: bool, **options: Any) -> None:
    """Show what is in COLLECTION: sizes, lengths, labels, repeated texts, what splits share.

    Nothing is encoded or stored. With a model it is also said how many texts are longer than the
    model reads.

    \b
    Example:
      era-embed inspect data/toy --out looks
    """
    from era_cache.collection.inspection import inspect_collection

    found = []
    for one in each_collection(collection, options):
        texts = read_texts(one, options)
        seen = inspect_collection(texts)
        cut = _cut(texts, options)
        rows = _rows(seen)
        if options["out"] is not None:
            _write(options["out"], seen, rows, cut)
        if as_json:
            found.append(_plain(seen, rows, cut))
        else:
            _render(seen, rows, cut)
    if as_json:
        echo_json(found[0] if len(found) == 1 else {"collections": found})


def _cut(texts: TextCollection, options: dict[str, Any]) -> list[dict[str, Any]]:
    """How many texts are longer than the models read; of a sample where there are many."""
    import numpy as np

    from era_cache.encode.encoder import EncoderSettings, open_encoder
    from era_cache.store.encoder_record import render
    from era_cache.types import Role

    found = []
    for role, model in (
        (Role.QUERY, options["query_model"]),
        (Role.DOCUMENT, options["doc_model"]),
    ):
        asked = texts.of(role)
        if not model or not len(asked.ids):
            continue
        encoder = open_encoder(model, EncoderSettings())
        measure = getattr(encoder, "full_lengths", None)
        if measure is None:
            note(f"{encoder.spec.name}: this kind of encoder cannot say how long texts are to it.")
            continue
        count = min(len(asked.ids), _MOST_COUNTED)
        some = asked.take(np.linspace(0, len(asked.ids) - 1, count).astype(np.int64))
        given = render(encoder.spec.templates[role], some.texts, some.instructions)
        lengths, limit = measure(given, role)
        over = int((lengths > limit).sum()) if limit else 0
        found.append(
            {
                "model": encoder.spec.name,
                "role": role.value,
                "limit": limit,
                "longest": int(lengths.max()),
                "cut_percent": round(100 * over / count, 1),
                "texts": count,
            }
        )
    return found


def _rows(seen: Inspection) -> list[dict[str, Any]]:
    """Facts as a table of name, value and remark."""
    rows: list[tuple[str, str, str]] = [
        ("documents", f"{seen.documents:,}", f"{seen.relevant:,} of them answer a query"),
        ("queries", f"{seen.queries:,}", ""),
    ]
    if seen.domain:
        rows.append(("domain", seen.domain, ""))
    if seen.instructions:
        rows.append(("instructions", f"{seen.instructions:,}", "different ones"))
    for one in seen.lengths:
        some = ", ".join(f"{name} {value:,}" for name, value in one.quantiles().items())
        rows.append((f"words of {one.what}", some, _spark(one.words)))
    for split in seen.splits:
        grades = ", ".join(f"{grade}: {count:,}" for grade, count in split.grades.items())
        rows.append(
            (
                f"split {split.name}",
                f"{split.queries:,} queries, {split.judgements:,} judgements",
                f"{split.positives:.1f} positives a query, {split.most_positives:,} at most; "
                f"grades {grades}",
            )
        )
    for name, count in (
        ("equal documents", seen.equal_documents),
        ("equal queries", seen.equal_queries),
        ("queries that are documents", seen.query_documents),
        ("queries inside their document", seen.inside),
        ("query texts in two splits", sum(one.shared for one in seen.splits)),
    ):
        rows.append((name, f"{count:,}", ""))
    return [dict(zip(("what", "number", "more"), row, strict=True)) for row in rows]


def _spark(words: IntArray) -> str:
    from era_cache.report.length_chart import sparkline

    return sparkline(words)


def _cut_text(one: dict[str, Any]) -> str:
    plural = "queries" if one["role"] == "query" else "documents"
    limit = f"{one['limit']:,}" if one["limit"] else "any number of"
    return (
        f"{one['model']} reads {limit} tokens: {one['cut_percent']:g} % of the {plural} are "
        f"longer (the longest: {one['longest']:,})."
    )


def _render(seen: Inspection, rows: list[dict[str, Any]], cut: list[dict[str, Any]]) -> None:
    say(seen.name)
    echo_table(["what", "number", "more"], [list(row.values()) for row in rows])
    for one in cut:
        say(_cut_text(one))
    for remark in seen.remarks():
        say(f"Note: {remark}")
    say()


def _write(
    folder: Path, seen: Inspection, rows: list[dict[str, Any]], cut: list[dict[str, Any]]
) -> None:
    from era_cache.disk.files import make_folder, safe_name
    from era_cache.report.length_chart import draw_lengths
    from era_cache.report.row_tables import write_tables

    make_folder(folder, may_be_link=True)
    lead = [f"What is in {seen.name}?", *map(_cut_text, cut), *seen.remarks()]
    picture = draw_lengths({one.what: one.words for one in seen.lengths})
    about = {"collection": seen.name}
    write_tables(folder, safe_name(seen.name), rows, seen.name, lead, about, picture)


def _plain(
    seen: Inspection, rows: list[dict[str, Any]], cut: list[dict[str, Any]]
) -> dict[str, Any]:
    del rows
    return {
        **seen._asdict(),
        "lengths": {one.what: one.quantiles() for one in seen.lengths},
        "splits": [one._asdict() for one in seen.splits],
        "remarks": seen.remarks(),
        "truncated": cut,
    }
