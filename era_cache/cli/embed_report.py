"""What era-embed says before and after it encodes."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from era_cache.cli.common import echo_table, note, say

if TYPE_CHECKING:
    from era_cache.collection.records import Collection, TextCollection
    from era_cache.encode.embed import EncodedRows
    from era_cache.encode.encoder import Encoder

__all__ = [
    "mention_left_out",
    "mention_no_judgements",
    "mention_old_sample",
    "mention_prompts",
    "render",
]

_NAMED = 10


def mention_left_out(stored: Collection, texts: TextCollection, reports: list[EncodedRows]) -> None:
    """Last, where it is seen: what is not in the store although it was given."""
    for message in texts.dropped.messages() if texts.dropped.bad_rows else ():
        note(f"Left out of {stored.name}: {message}.")
    for report in reports:
        if report.bad:
            named = "; ".join(report.bad[:_NAMED]) + ("; …" if len(report.bad) > _NAMED else "")
            note(
                f"Left out of {stored.name}: {len(report.bad):,} {report.what} that "
                f"{report.encoder} cannot encode (--skip-bad-rows): {named}."
            )


def mention_no_judgements(texts: TextCollection) -> None:
    """Say that a collection has none, which is no error."""
    if not texts.splits and texts.query_ids and texts.doc_ids:
        note(
            f"{texts.name}: no judgements; all {len(texts.query_ids):,} queries are taken. era-fit "
            "needs none; qrels that come later cost no encoding."
        )


def mention_old_sample(stored: Collection) -> None:
    """Say that alignment documents were chosen by queries that are test queries now."""
    note(
        f"{stored.name}: its alignment documents were chosen while nothing was judged, perhaps "
        "by queries that are test queries now, which can flatter figures a little. "
        "--align-sample random chooses without any query."
    )


def mention_prompts(instructions: list[str], large: Encoder, small: Encoder) -> None:
    """Say what the models' prompts are, and what they leave out."""
    from era_cache.types import Role

    for side, encoder in (("large", large), ("small", small)):
        for role, template in encoder.spec.templates.items():
            if template != "{text}":
                note(f"Prompt of the {side} model for each {role.value}: {template!r}")
        similarity = encoder.spec.source.get("similarity", "cosine")
        if similarity != "cosine":
            note(
                f"{encoder.spec.name} asks for {similarity} similarity; everything here is "
                "compared by cosine, so 'small' may differ from an index of dot products."
            )
    if any(instructions) and "{instruction}" not in large.spec.templates[Role.QUERY]:
        note(
            "Queries carry instructions, which this template leaves out. If the large model was "
            "trained with them, add: --large-query-template "
            r"$'Instruct: {instruction}\nQuery: {text}'"
        )


def render(store_path: Path, stored: Collection, reports: list[EncodedRows]) -> None:
    """Print what became of each part."""
    rows = [
        [
            report.what,
            report.encoder,
            f"{report.rows:,}",
            f"{report.encoded:,}",
            f"{report.cached:,}",
            f"{report.truncated:,}",
            f"{report.seconds:.1f}",
            f"{report.encoded / report.seconds:,.0f}" if report.encoded else "-",
        ]
        for report in reports
    ]
    header = ["part", "encoder", "texts", "encoded", "stored", "truncated", "seconds", "texts/s"]
    echo_table(header, rows)
    if not any(report.encoded for report in reports):
        total = sum(report.rows for report in reports)
        say(f"Nothing to encode: all {total:,} texts were in the store already.")
    say(f"Collection {stored.name}-{stored.version} is in {store_path}.")
    if stored.doc_ids:
        out = f"adapters/{stored.name}"
        say(f"Next: era-fit {quote(str(store_path))} {stored.name} --out {out}")
