"""Options for encoding one collection on many machines, and the end of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import OutFolder, all_of, count, note
from era_cache.cli.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_cache.collection.records import Collection
    from era_cache.encode.config import EmbedConfig
    from era_cache.encode.embed import EncodedRows, Left
    from era_cache.encode.encoder import Encoder, EncoderSettings
    from era_cache.encode.ray_pool import Workers
    from era_cache.encode.shard import Lack
    from era_cache.store.store import Store

__all__ = [
    "by_workers",
    "check_share_options",
    "compacted",
    "in_shares",
    "shard_of",
    "share_options",
    "without_options",
    "write_job_files",
]

WHOLE = (1, 1)
_MOST_WORKERS = 10_000
_share = click.FloatRange(min=0, max=1024)

share_options = all_of(
    click.option(
        "--shard",
        metavar="I/N",
        help="Encode only share I of N, from 1: any scheduler can run all N, on as many machines, "
        "into one store. The one that ends last finishes the collection.",
    ),
    click.option(
        "--finish",
        is_flag=True,
        help="After all shares: check that none is missing, encode what depends on all of them, "
        "and compact.",
    ),
    click.option(
        "--plan",
        "plan_folder",
        type=OutFolder(),
        metavar="FOLDER",
        help="Only say what would be encoded and how long it would take here, by a sample; and "
        "write job files for Slurm and Kubernetes into FOLDER.",
    ),
    click.option(
        "--shards", type=count, metavar="N", default=8, help="Shares of the job files of --plan."
    ),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Who encodes: this process, or workers of a Ray cluster (extra [ray]), which write "
        "to the store themselves.",
    ),
    click.option("--address", help="Of the Ray cluster.  [default: one on this machine]"),
    click.option(
        "--workers",
        metavar="MIN:MAX",
        default="1:2",
        help="Ray workers for each model: so many must start, so many may join.",
    ),
    click.option(
        "--worker-cpus", type=_share, default=1.0, help="Processors of a Ray worker; 0.5 will do."
    ),
    click.option(
        "--worker-gpus", type=_share, default=0.0, help="GPUs of a Ray worker; 0.5 shares one."
    ),
)


def shard_of(options: dict[str, Any]) -> tuple[int, int]:
    """The share to encode. Raises ``InputError``, ``UsageError``."""
    if not options["shard"]:
        return WHOLE
    from era_cache.encode.shard import parse_shard

    for name in ("finish", "bm25"):
        if options[name]:
            raise click.UsageError(
                f"--{name} needs all documents: give it without --shard, once all shares are done."
            )
    if options["plan_folder"]:
        raise click.UsageError("--plan writes jobs for all shares: leave --shard out.")
    return parse_shard(options["shard"])


def workers_of(options: dict[str, Any]) -> Workers | None:
    """The workers of the engine, None for this process. Raises ``InputError``, ``UsageError``."""
    if options["engine"] == "local":
        if options["address"]:
            raise click.UsageError("--address is of a Ray cluster: add --engine ray.")
        return None
    from era_cache.encode.ray_pool import Workers, import_ray

    fewest, _, most = options["workers"].partition(":")
    if not (fewest.isdecimal() and (most or fewest).isdecimal()) or not (
        1 <= int(fewest) <= int(most or fewest) <= _MOST_WORKERS
    ):
        raise click.UsageError(f"--workers {options['workers']}: expected MIN:MAX, such as 2:8.")
    import_ray()
    return Workers(
        int(fewest),
        int(most or fewest),
        options["worker_cpus"],
        options["worker_gpus"],
        options["address"],
    )


def check_share_options(options: dict[str, Any]) -> None:
    """Refuse early what would fail once a large collection is read."""
    shard_of(options)
    workers_of(options)


def write_job_files(options: dict[str, Any]) -> None:
    """Write job files that run this command in shares, and say where."""
    from era_cache.disk.files import make_folder, write_bytes
    from era_cache.encode.job_files import kubernetes_job, slurm_array

    folder, shares = options["plan_folder"], options["shards"]
    own = ["era-embed", *without_options(sys.argv[1:], {"--plan", "--shards"})]
    make_folder(folder)
    for name, text in (
        ("slurm.sh", slurm_array(own, shares)),
        ("kubernetes.json", kubernetes_job(own, shares)),
    ):
        write_bytes(folder / name, text.encode())
        note(f"Written: {folder / name}. Look it through, then submit it.")


def without_options(words: Sequence[str], names: set[str]) -> list[str]:
    """The words of a command line without some options and their values."""
    left, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in names:
            skip = True
        elif word.split("=")[0] not in names:
            left.append(word)
    return left


def by_workers(
    model: str, encoder: Encoder, settings: EncoderSettings, options: dict[str, Any]
) -> Encoder:
    """The encoder as the engine runs it. Raises ``InputError``, ``UsageError``."""
    workers = workers_of(options)
    if workers is None:
        return encoder
    from era_cache.encode.ray_workers import RayEncoder

    return RayEncoder(model, encoder, settings, workers)


Encoded = tuple["Collection", "list[EncodedRows]"]


def in_shares(
    config: EmbedConfig,
    encode: Callable[[EmbedConfig], Encoded],
    left_of: Callable[[Collection], Left],
) -> tuple[Collection, list[EncodedRows], list[Lack]]:
    """Encode a share, and finish the collection where it was the last one.

    Args:
        config: which share; of the whole collection, all of it is encoded.
        encode: encodes what a configuration asks for.
        left_of: what no share has encoded yet.

    Returns:
        The stored collection, reports, and what other shares still lack.
    """
    stored, reports = encode(config)
    if config.shard == WHOLE:
        return stored, reports, []
    number, count = config.shard
    left = left_of(stored)
    if left.lacks:
        lacks = "; ".join(map(str, left.lacks))
        note(
            f"Share {number} of {count} is done; others still lack {lacks}. "
            "The one that ends last finishes the collection; era-embed --finish checks it."
        )
        return stored, reports, left.lacks
    if not left.sample:
        note(f"Share {number} of {count} is done, and all others are: the collection is complete.")
        return stored, reports, []
    note(f"Share {number} of {count} is done, and all others are: finishing the collection.")
    stored, more = encode(replace(config, shard=WHOLE))
    return stored, [*reports, *(one for one in more if one.encoded)], []


def compacted(store: Store) -> None:
    """Merge what many processes wrote."""
    from era_cache.store.compact import compact

    with progress() as bars:
        compact(store, progress=bars)
