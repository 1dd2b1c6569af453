"""``era-store export`` and ``probe``: vectors out, and vectors compared with their model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli import completion
from era_cache.cli.common import (
    EraCommand,
    OutFile,
    PathArgument,
    count,
    device_option,
    echo_json,
    echo_table,
    json_option,
    note,
    say,
    seed_number,
)
from era_cache.cli.progress import progress, quiet_option
from era_cache.cli.store_options import place_argument, plain, role_choice
from era_cache.cli.stores import opened_store
from era_cache.cli.text_options import collection_options, read_texts

if TYPE_CHECKING:
    from era_cache.types import Where

__all__ = ["export_command", "probe_command"]


@click.command("export", cls=EraCommand)
@place_argument
@click.argument("encoder", shell_complete=completion.encoders)
@click.argument("collection", required=False, shell_complete=completion.collections)
@click.option("--all", "everything", is_flag=True, help="Every row of ENCODER, named by its key.")
@click.option(
    "--out", type=OutFile(), metavar="FILE", required=True, help="New file: .npy or .parquet."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="Precision of the written vectors.",
)
@click.option(
    "--ids-out",
    type=OutFile(),
    metavar="FILE",
    help="Where the ids of an .npy go: text, or a .json list.  [default: OUT.ids.txt]",
)
@click.option("--skip-missing", is_flag=True, help="Leave out texts that have no vector.")
@role_choice
@quiet_option
@json_option
def export_command(
    store_path: Where,
    encoder: str,
    collection: str | None,
    everything: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write vectors of STORE to a file, in the order of COLLECTION, with their ids.

    ENCODER is a name or the start of a fingerprint, COLLECTION a name, both as `era-store ls` shows
    them. Values are as stored: not normalised.

    \b
    Example:
      era-store export stores/mine e5-small-v2 toy --role document --out toy.npy
    """
    if (collection is None) != everything:
        raise click.UsageError("Give COLLECTION, or --all instead of it.")
    from era_cache.store.exchange.exporting import export_vectors
    from era_cache.types import Role

    store = opened_store(store_path)
    role = Role(options["role"]) if options["role"] else None
    with progress() as bars:
        report = export_vectors(
            store,
            store.encoder(encoder, role),
            store.collection(collection) if collection else None,
            options["out"],
            dtype=options["dtype"],
            ids_out=options["ids_out"],
            skip_missing=options["skip_missing"],
            progress=bars,
        )
    if as_json:
        echo_json(report._asdict())
        return
    if report.skipped:
        note(f"{report.skipped:,} texts have no vector and were left out.")
    ids = f", its ids to {report.ids}" if report.ids else ""
    say(f"{report.rows:,} x {report.dim} {report.dtype} to {report.vectors}{ids}.")


@click.command("probe", cls=EraCommand)
@place_argument
@click.argument("encoder", shell_complete=completion.encoders)
@click.argument("collection", type=PathArgument)
@click.option("--model", required=True, help="The model that ENCODER's vectors are said to be of.")
@click.option("--revision", help="Commit or tag of the model on the hub.")
@click.option("--sample", type=count, default=32, help="Texts to encode again.")
@click.option("--seed", type=seed_number, default=0, help="Chooses the texts.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.999,
    help="Smallest cosine that is no drift.",
)
@collection_options
@role_choice
@device_option
@json_option
def probe_command(
    store_path: Where, encoder: str, collection: Path, as_json: bool, **options: Any
) -> None:
    """Encode a sample of texts again and compare with what STORE holds.

    ENCODER is a name or the start of a fingerprint; COLLECTION is the folder with the texts (a
    store holds none). Exits with 1 where the vectors differ: other libraries, another machine, or
    an import that stated the wrong model.

    \b
    Example:
      era-store probe stores/mine e5-small-v2 data/toy --role document --model intfloat/e5-small-v2
    """
    from era_cache.encode.drift import probe_rows
    from era_cache.encode.encoder import encoder_as_recorded
    from era_cache.types import Role

    role = Role(options["role"]) if options["role"] else None
    stored = opened_store(store_path).encoder(encoder, role)
    model = encoder_as_recorded(
        stored.spec, options["model"], revision=options["revision"], device=options["device"]
    )
    report = probe_rows(
        stored,
        read_texts(collection, options),
        model,
        sample=options["sample"],
        seed=options["seed"],
        tolerance=options["tolerance"],
    )
    if as_json:
        echo_json(plain(report))
    else:
        _render_probe(report)
    if report.verdict != "ok":
        raise click.ClickException(
            f"Drift: '{report.worst}' has cosine {report.cosine_min:.6f} with its stored vector, "
            f"below {report.tolerance}. What is stored is not what this model gives here: compare "
            "the library versions above, or the claim of the import."
        )


def _render_probe(report: Any) -> None:
    rows = [
        ["texts compared", f"{report.rows:,} of {report.stored:,}"],
        ["smallest cosine", f"{report.cosine_min:.6f}"],
        ["mean cosine", f"{report.cosine_mean:.6f}"],
        ["largest difference of a value", f"{report.largest_difference:.3g}"],
        ["the same after storage rounding", f"{report.largest_difference_rounded:.3g}"],
        ["equal after storage rounding", f"{report.equal_after_rounding:,} rows"],
        ["largest difference of a length", f"{100 * report.largest_norm_difference:.3g}%"],
    ]
    echo_table([f"{report.encoder} ({report.role})", report.verdict], rows)
    for origin in report.segments:
        if origin.provenance.get("stated"):
            file = origin.provenance.get("imported_from")
            say(f"{origin.rows} rows of segment {origin.segment}: imported from {file}")
        for fact, (then, now) in origin.differs.items():
            say(f"{origin.rows} rows of segment {origin.segment}: {fact} {then}, now {now}")
