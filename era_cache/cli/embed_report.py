"""What era-embed says before and after it encodes."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import echo_table, note, say

if TYPE_CHECKING:
    from era_cache.collection.records import Collection, RoleTexts, TextCollection
    from era_cache.encode.embed import EncodedRows
    from era_cache.encode.encoder import Encoder, EncoderSettings
    from era_cache.store.store import Store
    from era_cache.types import Role, Where

__all__ = [
    "LANGUAGE",
    "check_bm25_options",
    "in_precision",
    "mention_left_out",
    "mention_no_judgements",
    "mention_old_sample",
    "mention_prompts",
    "render",
]

_NAMED = 10
LANGUAGE = "english"
"""Of BM25's stemmer, unless another is named."""


def check_bm25_options(options: dict[str, Any]) -> None:
    """Refuse early what would fail after hours of encoding."""
    from era_cache.encode.bm25 import check_bm25

    if options["bm25_language"] and not options["bm25"]:
        raise click.UsageError("--bm25-language needs --bm25.")
    if options["bm25"]:
        check_bm25(options["bm25_language"] or LANGUAGE)


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


def in_precision(
    model: str, settings: EncoderSettings, texts: RoleTexts, role: Role, store: Store | None
) -> Encoder:
    """Open a model in the precision asked for, and say what there is to know about it.

    Raises:
        EraError: it cannot be opened.
    """
    from era_cache.encode.encoder import open_encoder
    from era_cache.encode.precision_choice import choose_precision, other_precisions

    if settings.precision == "auto":
        choice = choose_precision(model, settings, texts, role, store)
        note(f"{choice.encoder.spec.name}: {choice.precision} ({choice.reason}).")
        return choice.encoder
    encoder = open_encoder(model, settings)
    for precision, rows in other_precisions(encoder, store).items():
        note(
            f"{encoder.spec.name}: the store holds {rows:,} rows of it in {precision}; "
            f"{settings.precision} is encoded anew. --precision auto takes what is there."
        )
    return encoder


def mention_prompts(instructions: Sequence[str], large: Encoder, small: Encoder) -> None:
    """Say what the models' prompts are, and what they leave out."""
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
    _propose_prompts(any(instructions), large, small)


def _propose_prompts(instructed: bool, large: Encoder, small: Encoder) -> None:
    """Name prompts that a model is known for and was not given; nothing is applied unasked."""
    from era_cache.encode.known_prompts import known_prompts
    from era_cache.types import Role

    for side, encoder in (("large", large), ("small", small)):
        known = known_prompts(encoder.spec.name)
        wanted = {Role.QUERY: known.query, Role.DOCUMENT: known.document} if known else {}
        bare = all(template == "{text}" for template in encoder.spec.templates.values())
        asks = "{instruction}" in wanted.get(Role.QUERY, "")
        if known and bare and (instructed or not asks):
            options = " ".join(
                f"--{side}-{name}-template {_shell(wanted[role])}"
                for name, role in (("query", Role.QUERY), ("doc", Role.DOCUMENT))
                if wanted[role] != "{text}"
            )
            note(
                f"{encoder.spec.name} was trained with prompts that its files do not name "
                f"({known.source}). If that is this model, add: {options}"
            )
        elif instructed and side == "large" and "{instruction}" not in _template(encoder):
            note(
                "Queries carry instructions, which this template leaves out. If the large model "
                "was trained with them, add: --large-query-template "
                r"$'Instruct: {instruction}\nQuery: {text}'"
            )


def _template(encoder: Encoder) -> str:
    from era_cache.types import Role

    return encoder.spec.templates[Role.QUERY]


def _shell(text: str) -> str:
    """A template as bash takes it."""
    return "$'" + text.replace("\n", "\\n") + "'" if "\n" in text else quote(text)


def render(
    store_path: Where, stored: Collection, reports: list[EncodedRows], *, finished: bool
) -> None:
    """Print what became of each part; what is next is only said of what is finished."""
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
    if finished and len(stored.doc_ids):
        out = f"adapters/{stored.name}"
        say(f"Next: era-fit {quote(str(store_path))} {stored.name} --out {out}")
