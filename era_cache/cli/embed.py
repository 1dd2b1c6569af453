"""``era-embed``: encode a collection into a store, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    Command,
    EraCommand,
    OutFolder,
    PathArgument,
    all_of,
    count,
    device_option,
    echo_json,
    echo_table,
    json_option,
    note,
    say,
    version_option,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.service_options import (
    bill,
    mention_bill,
    service_options,
    service_settings,
    show_plan,
    side_options,
)
from era_cache.cli.text_options import (
    collection_options,
    plain_options,
    read_log,
    read_texts,
)
from era_cache.config import EmbedConfig

if TYPE_CHECKING:
    from era_cache.collection.records import Collection, TextCollection
    from era_cache.encode.embed import EncodedRows
    from era_cache.encode.encoder import Encoder

__all__ = ["main"]

DEFAULTS = EmbedConfig()
_NAMED = 10
_LANGUAGE = "english"
OWN = "  [default: the model's own]"


def model_options(side: str) -> Callable[[Command], Command]:
    """The options of one of the two models."""
    prompt = "Prompt of the {} model for {}; holds {{text}}, and {{instruction}} if wanted." + OWN
    return all_of(
        click.option(
            f"--{side}-query-template", metavar="TEMPLATE", help=prompt.format(side, "queries")
        ),
        click.option(
            f"--{side}-doc-template", metavar="TEMPLATE", help=prompt.format(side, "documents")
        ),
        click.option(
            f"--{side}-max-seq-length",
            type=count,
            metavar="N",
            help=f"Tokens of a text that the {side} model reads.{OWN}",
        ),
        click.option(
            f"--{side}-truncate-dim",
            type=count,
            metavar="N",
            help=f"Leading dimensions kept of the {side} model's vectors.  [default: all]",
        ),
        click.option(
            f"--{side}-revision",
            help=f"Commit or tag of the {side} model on the hub; of openai:… a word of your own.",
        ),
        side_options(side),
    )


@click.command(cls=EraCommand)
@click.argument("collection", type=PathArgument)
@click.option(
    "--query-model",
    required=True,
    help="Large model, which encodes queries: a folder, a hub name, or openai:NAME[@ADDRESS].",
)
@click.option("--doc-model", required=True, help="Small model, that of your index, likewise.")
@click.option(
    "--store",
    "store_path",
    type=OutFolder(),
    required=True,
    help="Folder of the store; made if missing.",
)
@click.option(
    "--align-documents",
    type=count,
    metavar="N",
    default=DEFAULTS.align_documents,
    help="Number of documents that the large model encodes, too, to align the two spaces.",
)
@click.option(
    "--align-sample",
    type=click.Choice(["random", "retrieved"]),
    help="How these are chosen: at random, or where queries that nobody judged look.  [default: "
    "retrieved where there are such queries, else random; as many as are encoded already will do]",
)
@click.option(
    "--query-log",
    type=PathArgument,
    metavar="FILE",
    help="Plain file of queries, as with --role query, that help to choose. Only the small model "
    "encodes them.",
)
@click.option(
    "--large-corpus",
    is_flag=True,
    help="Encode all documents with the large model, too: era-eval then measures a full re-encode.",
)
@click.option(
    "--bm25",
    is_flag=True,
    help="Rank the documents for every query by BM25, too: era-fit and era-eval then show it, "
    "alone and joined with candidates. Needs the extra [bm25].",
)
@click.option(
    "--bm25-language",
    metavar="NAME",
    help="Language of --bm25's stemmer and stop words; none for neither.  [default: english]",
)
@model_options("large")
@model_options("small")
@service_options
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    help="Precision that the models run in.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default=DEFAULTS.dtype,
    help="Form of the stored vectors; int8 keeps one scale for each row (see era-eval --int8).",
)
@click.option(
    "--batch-tokens",
    type=count,
    metavar="N",
    default=DEFAULTS.batch_tokens,
    help="Tokens in one batch, padding included.",
)
@click.option(
    "--note", default="", show_default=False, help="Kept with the vectors, in each segment."
)
@plain_options
@collection_options
@device_option
@quiet_option
@json_option
@version_option
def main(collection: Path, store_path: Path, as_json: bool, **options: Any) -> None:
    """Encode COLLECTION (a folder in BEIR layout, or what --reader reads) into a store.

    It needs no judgements; those that come later cost no encoding. Documents or queries alone will
    do, also as one plain file of texts (--role).

    The small model encodes all documents and queries, the large model all queries and a sample of
    the documents. Rows that the store has are not encoded again, so an interrupted run goes on
    where it stopped. A model that an installed package brings is named KIND:NAME.

    \b
    Example:
      era-embed data/toy --store stores/mine \\
          --query-model intfloat/e5-large-v2 --doc-model intfloat/e5-small-v2
    """
    from era_cache.encode.align_sample import judged_since
    from era_cache.encode.bm25 import embed_bm25
    from era_cache.encode.embed import embed_collection
    from era_cache.store.store import Store

    _check_bm25(options)
    texts = read_texts(collection, options)
    _mention_no_judgements(texts)
    log = read_log(options)
    large, small = _encoders(options)
    _mention_prompts(texts.instructions, large, small)
    config = replace(
        DEFAULTS,
        align_documents=options["align_documents"],
        align_sample=options["align_sample"] or "",
        dtype=options["dtype"],
        note=options["note"],
        skip_bad_rows=options["skip_bad_rows"],
    )
    if options["dry_run"]:
        return show_plan(store_path, texts, log, (large, small), config, options, as_json)
    with progress() as bars:
        stored, reports = embed_collection(
            Store.create(store_path),
            texts,
            large=large,
            small=small,
            config=config,
            large_corpus=options["large_corpus"],
            log=log,
            progress=bars,
        )
        if options["bm25"]:
            language = options["bm25_language"] or _LANGUAGE
            opened = Store.open(store_path)
            reports.append(embed_bm25(opened, texts, stored, language=language, progress=bars))
    if not options["align_sample"] and judged_since(Store.open(store_path), stored):
        note(
            f"{stored.name}: its alignment documents were chosen while nothing was judged, perhaps "
            "by queries that are test queries now, which can flatter figures a little. "
            "--align-sample random chooses without any query."
        )
    if as_json:
        echo_json(
            {
                "store": str(store_path),
                "collection": stored.name,
                "version": stored.version,
                "dropped": texts.dropped._asdict(),
                "parts": [report._asdict() for report in reports],
                "served": bill(large, small),
            }
        )
    else:
        _render(store_path, stored, reports)
    mention_bill(large, small)
    _mention_left_out(stored, texts, reports)


def _check_bm25(options: dict[str, Any]) -> None:
    """Refuse early what would fail after hours of encoding."""
    from era_cache.encode.bm25 import check_bm25

    if options["bm25_language"] and not options["bm25"]:
        raise click.UsageError("--bm25-language needs --bm25.")
    if options["bm25"]:
        check_bm25(options["bm25_language"] or _LANGUAGE)


def _mention_left_out(
    stored: Collection, texts: TextCollection, reports: list[EncodedRows]
) -> None:
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


def _mention_no_judgements(texts: TextCollection) -> None:
    if not texts.splits and texts.query_ids and texts.doc_ids:
        note(
            f"{texts.name}: no judgements; all {len(texts.query_ids):,} queries are taken. era-fit "
            "needs none; qrels that come later cost no encoding."
        )


def _encoders(options: dict[str, Any]) -> tuple[Encoder, Encoder]:
    from era_cache.encode.encoder import EncoderSettings, open_encoder
    from era_cache.encode.service import Budget

    budget = Budget(options["max_cost"])

    def opened(model: str, side: str) -> Encoder:
        settings = EncoderSettings(
            query_template=options[f"{side}_query_template"],
            document_template=options[f"{side}_doc_template"],
            max_seq_length=options[f"{side}_max_seq_length"],
            truncate_dim=options[f"{side}_truncate_dim"],
            revision=options[f"{side}_revision"],
            precision=options["precision"],
            device=options["device"],
            batch_tokens=options["batch_tokens"],
            service=service_settings(options, side, budget),
        )
        return open_encoder(model, settings)

    return opened(options["query_model"], "large"), opened(options["doc_model"], "small")


def _mention_prompts(instructions: list[str], large: Encoder, small: Encoder) -> None:
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


def _render(store_path: Path, stored: Collection, reports: list[EncodedRows]) -> None:
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
