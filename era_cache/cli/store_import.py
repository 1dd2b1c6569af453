"""``era-store import``: bring in vectors that somebody has already."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    EraCommand,
    PathArgument,
    count,
    echo_json,
    echo_table,
    json_option,
    note,
    say,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.store_options import ROLES, store_argument
from era_cache.cli.text_options import collection_options, read_texts

if TYPE_CHECKING:
    from era_cache.store.exchange.importing import ImportReport
    from era_cache.types import Role

__all__ = ["import_command"]


@click.command("import", cls=EraCommand)
@store_argument
@click.argument("collection", required=False, type=PathArgument)
@click.option("--role", type=ROLES, required=True, help="What the vectors' texts are.")
@click.option(
    "--vectors",
    metavar="FILE|URL",
    required=True,
    help="The vectors: .npy (rows, dimensions), .parquet or .h5; or qdrant://HOST:PORT/NAME, "
    "lancedb:///FOLDER/TABLE, postgresql://…/DB?table=NAME (docs/howto).",
)
@click.option(
    "--ids",
    type=PathArgument,
    metavar="FILE",
    help="Ids of an .npy's rows: text with an id in each line, .npy of strings or .json list.",
)
@click.option(
    "--in-corpus-order",
    is_flag=True,
    help="There are no ids: row i is text i of COLLECTION. Only if you are sure.",
)
@click.option(
    "--keys",
    type=PathArgument,
    metavar="FILE",
    help="Keys of the rows, instead of COLLECTION: .npy (rows, 16) uint8, 32 hex digits in each "
    "line, or .parquet with a column 'key'.",
)
@click.option("--model", help="Model that made them, a folder or hub name, as era-embed takes it.")
@click.option(
    "--encoder",
    type=PathArgument,
    metavar="FILE",
    help='Instead of --model: JSON {"name": …, "model": …, any further facts}.',
)
@click.option(
    "--template",
    help="Prompt that the texts were put into; holds {text}.  [default: the model's own]",
)
@click.option("--revision", help="Commit or tag of the model on the hub.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16", "8bit"]),
    help="Precision that the model ran in.  [default: float32]",
)
@click.option("--max-seq-length", type=count, metavar="N", help="Tokens of a text that it read.")
@click.option("--truncate-dim", type=count, metavar="N", help="Leading dimensions that were kept.")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32", "int8"]),
    default="float16",
    help="Precision of the stored vectors.",
)
@click.option("--id-column", metavar="NAME", help="Parquet column or HDF5 dataset of the ids.")
@click.option("--vector-column", metavar="NAME", help="The same of the vectors.")
@click.option("--skip-unknown", is_flag=True, help="Pass over ids that COLLECTION has not.")
@click.option(
    "--note",
    "remark",
    default="",
    show_default=False,
    help="Your own words, kept with the vectors.",
)
@collection_options
@quiet_option
@json_option
def import_command(
    store_path: Path, collection: Path | None, as_json: bool, **options: Any
) -> None:
    """Bring vectors that you already have into STORE.

    COLLECTION (a folder in BEIR layout) has the texts that the vectors belong to; they are matched
    by id. --model states which model made them: era-embed with that model then has nothing left to
    encode, and `era-store probe` can check the claim. --encoder is for vectors of an API.

    \b
    Example:
      era-store import stores/mine data/toy --role document \\
          --vectors index.npy --ids index.ids.txt --model intfloat/e5-small-v2
    """
    _check_import_usage(collection, options)
    from era_cache.types import Role

    role = Role(options["role"])
    with contextlib.ExitStack() as stack:
        _fetch(options, stack)
        report = _imported(store_path, collection, role, options)
    if as_json:
        echo_json({"store": str(store_path), **report._asdict()})
        return
    _render_import(report, collection)


def _fetch(options: dict[str, Any], stack: contextlib.ExitStack) -> None:
    """Where the vectors are an address, read them into files that last as long as the stack."""
    from era_cache.store.exchange.databases import fetch_vectors, is_address

    if not is_address(options["vectors"]):
        options["vectors"] = Path(options["vectors"])
        return
    if options["ids"] or options["keys"] or options["in_corpus_order"]:
        raise click.UsageError(
            "A database has ids of its own: no --ids, --keys, --in-corpus-order."
        )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="era-import-")))
    with progress("row") as bars:
        found = fetch_vectors(options["vectors"], folder, bars)
    remark = options["remark"]
    options["remark"] = f"read from {found.source}" + (f"; {remark}" if remark else "")
    options["vectors"], options["ids"] = found.vectors, found.ids


def _imported(
    store_path: Path, collection: Path | None, role: Role, options: dict[str, Any]
) -> ImportReport:
    from era_cache.store.exchange.importing import Claim, import_vectors
    from era_cache.store.store import Store

    texts = read_texts(collection, options) if collection else None
    spec, width = _stated_encoder(role, options)
    vectors, rows = _file_rows(texts, role, options)
    if width is not None and width != vectors.dim:
        raise click.ClickException(
            f"{vectors.path}: vectors of {vectors.dim} dimensions, but {spec.name} gives {width}. "
            "Name the model that made them; --truncate-dim says how many dimensions were kept."
        )
    if options["model"]:
        _mention_claim(store_path, collection, spec, role, options)
    with progress() as bars:
        return import_vectors(
            Store.create(store_path),
            vectors,
            rows,
            Claim(spec, role, options["remark"]),
            dtype=options["dtype"],
            texts=texts,
            progress=bars,
        )


def _check_import_usage(collection: Path | None, options: dict[str, Any]) -> None:
    if (collection is None) == (options["keys"] is None):
        raise click.UsageError("Give COLLECTION, or --keys instead of it.")
    if bool(options["model"]) == bool(options["encoder"]):
        raise click.UsageError("Say who made the vectors: --model, or --encoder instead of it.")
    if options["encoder"] and any(
        options[name]
        for name in ("template", "revision", "precision", "max_seq_length", "truncate_dim")
    ):
        raise click.UsageError(
            "--encoder states everything itself: --template, --revision, --precision, "
            "--max-seq-length and --truncate-dim go with --model."
        )
    sources = ("ids", "in_corpus_order", "keys")
    if sum(bool(options[name]) for name in sources) > 1:
        raise click.UsageError("Of --ids, --in-corpus-order and --keys, give one at most.")


def _stated_encoder(role: Any, options: dict[str, Any]) -> tuple[Any, int | None]:
    """The encoder that the user states, and its dimension where that is cheaply known."""
    if options["encoder"]:
        from era_cache.store.encoder_record import read_stated_spec

        return read_stated_spec(options["encoder"]), None
    from era_cache.encode.encoder import EncoderSettings, open_encoder

    settings = EncoderSettings(
        revision=options["revision"],
        precision=options["precision"] or EncoderSettings.precision,
        max_seq_length=options["max_seq_length"],
        truncate_dim=options["truncate_dim"],
        **{f"{role.value}_template": options["template"]},
    )
    encoder = open_encoder(options["model"], settings)
    return encoder.spec, getattr(encoder, "width", None)


def _file_rows(texts: Any, role: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Open the vectors and find out what each row is, from exactly one source."""
    from era_cache.store.exchange.arrays import open_vectors
    from era_cache.store.exchange.matching import rows_by_id, rows_by_key, rows_in_order
    from era_cache.store.exchange.row_ids import read_ids, read_keys

    path = options["vectors"]
    vectors = open_vectors(
        path, id_column=options["id_column"], vector_column=options["vector_column"]
    )
    if options["keys"]:
        return vectors, rows_by_key(path, vectors.rows, read_keys(options["keys"]))
    ids = vectors.ids()
    if ids is not None and (options["ids"] or options["in_corpus_order"]):
        raise click.UsageError(
            f"{path} has ids of its own; --ids or --in-corpus-order is too many."
        )
    if options["in_corpus_order"]:
        return vectors, rows_in_order(path, vectors.rows, texts, role)
    if options["ids"]:
        ids = read_ids(options["ids"])
    if ids is None:
        raise click.UsageError(
            f"{path} has no ids: give them with --ids or --id-column. Only if you are sure that "
            "row i is text i of COLLECTION: --in-corpus-order."
        )
    return vectors, rows_by_id(
        path, vectors.rows, ids, texts, role, skip_unknown=options["skip_unknown"]
    )


def _mention_claim(
    store_path: Path, collection: Path | None, spec: Any, role: Any, options: dict[str, Any]
) -> None:
    if spec.templates[role] != "{text}":
        note(f"Prompt that the texts are taken to have had: {spec.templates[role]!r}")
    folder = quote(str(collection)) if collection else "COLLECTION"
    note(
        f"That {spec.name} made these vectors is taken on your word. To check it: era-store probe "
        f"{quote(str(store_path))} {spec.fingerprint(role)[:12]} {folder} "
        f"--model {quote(options['model'])}"
    )


def _render_import(report: Any, collection: Path | None) -> None:
    counts = {
        "in the file": report.rows,
        "imported": report.imported,
        "stored before": report.stored_before,
        "repeated texts": report.repeated,
        "unknown ids": report.unknown,
        "texts still without": report.still_missing,
    }
    rows = [[what, f"{count:,}"] for what, count in counts.items() if count is not None]
    echo_table(["vectors", "rows"], rows)
    say(f"Encoder {report.encoder} ({report.role}, fingerprint {report.fingerprint[:12]}).")
    if report.still_missing and collection:
        say("era-embed with that model encodes what is still missing.")
