"""``era-embed``: encode a collection into a store, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from era_cache.cli.common import (
    EraForms,
    OutStore,
    PathArgument,
    count,
    echo_json,
    json_option,
    version_option,
)
from era_cache.cli.embed_devices import devices_of, encode_on_devices
from era_cache.cli.embed_inspect import inspect
from era_cache.cli.embed_onnx import onnx
from era_cache.cli.embed_report import (
    LANGUAGE,
    check_bm25_options,
    in_precision,
    mention_left_out,
    mention_no_judgements,
    mention_old_sample,
    mention_prompts,
    render,
)
from era_cache.cli.model_options import model_options
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.service_options import (
    bill,
    mention_bill,
    planned,
    service_options,
    service_settings,
)
from era_cache.cli.share_options import (
    by_workers,
    check_share_options,
    compacted,
    in_shares,
    shard_of,
    share_options,
    write_job_files,
)
from era_cache.cli.stores import found_store, made_store, opened_store
from era_cache.cli.text_options import (
    collection_options,
    each_collection,
    plain_options,
    read_log,
    read_texts,
)
from era_cache.encode.config import EmbedConfig

if TYPE_CHECKING:
    from era_cache.collection.records import Collection, TextCollection
    from era_cache.encode.embed import EncodedRows, Left
    from era_cache.encode.encoder import Encoder
    from era_cache.types import Where

__all__ = ["main"]

DEFAULTS = EmbedConfig()


class EmbedForms(EraForms):
    """``era-embed COLLECTION …``, and beside it its other forms."""

    forms: ClassVar[dict[str, click.Command]] = {"inspect": inspect, "onnx": onnx}
    thing = "collection"


@click.command(
    cls=EmbedForms,
    epilog="`era-embed inspect` shows what is in a collection, `era-embed onnx` exports a model; "
    "each has its own --help. A folder that is named like them is given as ./inspect.",
)
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
    type=OutStore(),
    required=True,
    help="Folder or URL (s3://bucket/store) of the store; made if missing.",
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
@share_options
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16", "8bit", "auto"]),
    default="float32",
    help="Precision that the models run in; auto tries a few texts and takes the fastest that "
    "gives the same vectors (cosines within 5e-4), or what the store has of the model already; "
    "8bit is for models that do not fit otherwise.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default=DEFAULTS.dtype,
    help="Form of the stored vectors; int8 keeps one scale for each row (see era-eval --int8).",
)
@click.option(
    "--attention",
    type=click.Choice(["eager", "sdpa", "flash_attention_2"]),
    help="How transformers attend; flash_attention_2 needs its package and a GPU.  [default: the "
    "library's own choice]",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Batches of one length only: no text is padded, so that a vector hardly depends on what "
    "it is encoded with. Slower.",
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
@click.option(
    "--device",
    metavar="NAME[,NAME...]",
    help="Torch device, such as cpu or cuda:0; several, or all, encode a share each, in a process "
    "of their own.  [default: cuda where there is one]",
)
@quiet_option
@json_option
@version_option
def main(collection: Path, store_path: Where, as_json: bool, **options: Any) -> None:
    """Encode COLLECTION into a store.

    It is a folder in BEIR layout, hub:OWNER/NAME, mair:TASK, mteb:TASK, irds:ID, a zip file, and
    more (docs/collections.md). It needs no judgements; those that come later cost no encoding.
    Documents or queries alone will do, also as one plain file of texts (--role).

    The small model encodes all documents and queries, the large model all queries and a sample of
    the documents. Rows that the store has are not encoded again, so an interrupted run goes on
    where it stopped. A model that an installed package brings is named KIND:NAME.

    \b
    Example:
      era-embed data/toy --store stores/mine \\
          --query-model intfloat/e5-large-v2 --doc-model intfloat/e5-small-v2
    """
    check_bm25_options(options)
    check_share_options(options)
    if devices := devices_of(options):
        options["device"] = devices[0]
        if len(devices) > 1 and not (options["dry_run"] or options["plan_folder"]):
            encode_on_devices(devices)
    given = each_collection(collection, options)
    log = read_log(options)
    encoders: tuple[Encoder, Encoder] | None = None
    found = []
    for one in given:
        texts = read_texts(one, options)
        mention_no_judgements(texts)
        if encoders is None:
            encoders = _encoders(options, texts, store_path)
            mention_prompts(texts.instructions, *encoders)
        found.append(_embed(store_path, texts, log, encoders, options, as_json))
    if options["plan_folder"]:
        write_job_files(options)
    if as_json:
        shown = found[0] if len(found) == 1 else {"collections": found}
        served = {"served": bill(*encoders) if encoders else {}}
        echo_json({"store": str(store_path), **shown, **served})
    elif encoders:
        mention_bill(*encoders)


def _embed(
    store_path: Where,
    texts: TextCollection,
    log: TextCollection | None,
    encoders: tuple[Encoder, Encoder],
    options: dict[str, Any],
    as_json: bool,
) -> dict[str, Any]:
    """Embed one collection, or say what that would be."""
    from era_cache.encode.align_sample import judged_since
    from era_cache.encode.bm25 import embed_bm25
    from era_cache.encode.embed import embed_collection, left_to_encode
    from era_cache.encode.shard import check_complete

    config, whole = _config(options), options["large_corpus"]
    if options["dry_run"] or options["plan_folder"]:
        how = {"quiet": as_json, "timed": options["plan_folder"] is not None}
        return planned(store_path, texts, log, encoders, config, whole=whole, **how)
    store = opened_store(store_path) if options["finish"] else made_store(store_path)

    both = dict(zip(("large", "small"), encoders, strict=True))

    def encode(config: EmbedConfig) -> tuple[Collection, list[EncodedRows]]:
        with progress() as bars:
            return embed_collection(
                store, texts, **both, config=config, large_corpus=whole, log=log, progress=bars
            )

    def left_of(stored: Collection) -> Left:
        return left_to_encode(
            store, texts, stored, encoders=encoders, config=config, large_corpus=whole, log=log
        )

    if options["finish"]:
        lacks = left_of(store.add_collection(texts)).lacks
        check_complete(texts.name, lacks, skip_bad_rows=config.skip_bad_rows)
    stored, reports, left = in_shares(config, encode, left_of)
    if options["finish"] or options["engine"] != "local":
        compacted(store)
    if options["bm25"]:
        language = options["bm25_language"] or LANGUAGE
        with progress() as bars:
            reports.append(embed_bm25(store, texts, stored, language=language, progress=bars))
    if not left and not options["align_sample"] and judged_since(store, stored):
        mention_old_sample(stored)
    if not as_json:
        render(store_path, stored, reports, finished=not left)
    mention_left_out(stored, texts, reports)
    return {
        "collection": stored.name,
        "version": stored.version,
        "dropped": texts.dropped._asdict(),
        "parts": [report._asdict() for report in reports],
        "missing": [one._asdict() for one in left],
    }


def _config(options: dict[str, Any]) -> EmbedConfig:
    return replace(
        DEFAULTS,
        align_documents=options["align_documents"],
        align_sample=options["align_sample"] or "",
        dtype=options["dtype"],
        note=options["note"],
        skip_bad_rows=options["skip_bad_rows"],
        shard=shard_of(options),
    )


def _encoders(
    options: dict[str, Any], texts: TextCollection, store_path: Where
) -> tuple[Encoder, Encoder]:
    from era_cache.encode.encoder import EncoderSettings
    from era_cache.encode.service import Budget
    from era_cache.types import Role

    budget = Budget(options["max_cost"])
    store = found_store(store_path)

    def opened(model: str, side: str, role: Role) -> Encoder:
        settings = EncoderSettings(
            query_template=options[f"{side}_query_template"],
            document_template=options[f"{side}_doc_template"],
            max_seq_length=options[f"{side}_max_seq_length"],
            truncate_dim=options[f"{side}_truncate_dim"],
            revision=options[f"{side}_revision"],
            precision=options["precision"],
            attention=options["attention"],
            device=options["device"],
            batch_tokens=options["batch_tokens"],
            deterministic=options["deterministic"],
            service=service_settings(options, side, budget),
        )
        encoder = in_precision(model, settings, texts.of(role), role, store)
        return by_workers(model, encoder, settings, options)

    large = opened(options["query_model"], "large", Role.QUERY)
    return large, opened(options["doc_model"], "small", Role.DOCUMENT)
