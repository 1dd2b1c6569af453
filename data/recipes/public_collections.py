"""Fetch public collections from where their authors keep them, and convert them.

    python data/recipes/public_collections.py scifact collections
    python data/recipes/public_collections.py --all collections

In: archives of BEIR and files of GitHub repositories at fixed commits, each with a known digest.
Out: folders in BEIR layout, the same that the figures of docs/fitting.md were measured on. Licences
are the authors' own (``meta.json``); some allow research only. Files that were fetched are kept
beside the collections, in ``.sources``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import click
from public_formats import Parts, of_beir, of_cosqa, of_cranfield, of_med, of_sealtools

from era_cache.disk.files import os_errors, write_bytes
from era_cache.errors import EraError, InputError

__all__ = ["SOURCES", "File", "Source", "build_collection"]

_LARGEST = 1 << 28
_TRIES = 4
_SECONDS = 60
_BEIR = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
_GITHUB = "https://raw.githubusercontent.com"


class File(NamedTuple):
    """One file: where it is, and the digest of its content (``sha256:…`` or ``md5:…``)."""

    url: str
    digest: str


class Source(NamedTuple):
    """What a collection is made from, and how."""

    files: tuple[File, ...]
    convert: Callable[[list[bytes]], Parts]
    domain: str
    instruction: str
    licence: str


def build_collection(name: str, source: Source, folder: Path) -> Path:
    """Fetch and convert one collection, unless its folder is there.

    Args:
        name: of the collection, and of its folder.
        source: what it is made from.
        folder: of collections.

    Raises:
        InputError: a file cannot be fetched or is not the one that is expected.
        StoreError: the folder cannot be written.
    """
    target = folder / name
    if target.exists():
        return target
    contents = [_fetched(one, folder / ".sources") for one in source.files]
    parts = source.convert(contents)
    stage = folder / f".{name}-{secrets.token_hex(4)}"
    with os_errors("writing", folder):
        stage.mkdir(parents=True)
        try:
            _write(stage, name, source, parts)
            stage.rename(target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return target


def _write(stage: Path, name: str, source: Source, parts: Parts) -> None:
    said = {"instruction": source.instruction} if source.instruction else {}
    documents = (
        {"_id": one, "title": title, "text": text} for one, (title, text) in parts.documents.items()
    )
    queries = ({"_id": one, "text": text, **said} for one, text in parts.queries.items())
    for file, rows in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        write_bytes(stage / file, "".join(map(_line, rows)).encode())
    (stage / "qrels").mkdir()
    for split, judged in parts.qrels.items():
        lines = [f"{query}\t{doc}\t{grade}\n" for (query, doc), grade in judged.items()]
        text = "query-id\tcorpus-id\tscore\n" + "".join(lines)
        write_bytes(stage / "qrels" / f"{split}.tsv", text.encode())
    meta = {
        "name": name,
        "domain": source.domain,
        "licence": source.licence,
        "sources": [one._asdict() for one in source.files],
    }
    write_bytes(stage / "meta.json", (json.dumps(meta, indent=1) + "\n").encode())


def _line(row: Mapping[str, str]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _fetched(file: File, kept: Path) -> bytes:
    """A file's content, from an earlier run or its address; never of another digest."""
    algorithm, _, wanted = file.digest.partition(":")
    path = kept / wanted[:32]

    def digest(data: bytes) -> str:
        return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()

    if path.is_file() and digest(data := path.read_bytes()) == wanted:
        return data
    data = _download(file.url)
    if digest(data) != wanted:
        raise InputError(
            f"{file.url}: not the file that is expected ({algorithm} {digest(data)}, wanted "
            f"{wanted}). Its authors may have changed it; nothing was written."
        )
    with os_errors("writing", kept):
        kept.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return data


def _download(url: str) -> bytes:
    reason = ""
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310
                data: bytes = answer.read(_LARGEST + 1)
                expected = answer.headers.get("content-length")
            if len(data) > _LARGEST:
                raise InputError(f"{url}: larger than any of these collections.")
            if expected is None or int(expected) == len(data):
                return data
            reason = f"{len(data):,} of {int(expected):,} bytes"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except OSError as error:
            reason = str(getattr(error, "reason", error))
        if attempt + 1 < _TRIES:
            time.sleep(0.5 * 2**attempt)
    raise InputError(f"{url}: cannot be fetched: {reason}. Check the network, or try again later.")


_COSQA = f"{_GITHUB}/Jun-jie-Huang/CoCLR/14ebcacf9e9bc3e7109102632bc63047876f27d2/data/search"
_SEAL = (
    f"{_GITHUB}/fairyshine/Seal-Tools/ce753ecd60ed08dd376984035de531ab8421f1c6/Seal-Tools_Dataset"
)
_SMART_FILES = f"{_GITHUB}/lailaglez/belief-network-irs/9094e4cde738bd93ed1747dc958b5acb0e0fa684"

SOURCES: dict[str, Source] = {
    "scifact": Source(
        (File(f"{_BEIR}/scifact.zip", "md5:5f7d1de60b170fc8027bb7898e2efca1"),),
        of_beir,
        "academic",
        "Given a scientific claim, find abstracts that support or refute it.",
        "claims CC BY 4.0, abstracts ODC-By 1.0 (SciFact)",
    ),
    "nfcorpus": Source(
        (File(f"{_BEIR}/nfcorpus.zip", "md5:a89dba18a62ef92f7d323ec890a0d38d"),),
        of_beir,
        "medical",
        "Given a question about nutrition or health, find articles that answer it.",
        "academic use (NFCorpus)",
    ),
    "cosqa": Source(
        (
            File(
                f"{_COSQA}/code_idx_map.txt",
                "sha256:be8a910ca03cb9f1b38a0eba6dc8109eeb8040a40aaba1a467a7b8426d261f3f",
            ),
            File(
                f"{_COSQA}/cosqa-retrieval-test-500.json",
                "sha256:27d3552b2e7dd86cf9f9a0b3c135e6777d4faafa9c29fb1b9b01ece945974ad6",
            ),
            File(
                f"{_COSQA}/cosqa-retrieval-dev-500.json",
                "sha256:ccdfffee7ae1f1cf1a0406566a61c984f4fbce678c8ea108eedd03d11bff9518",
            ),
        ),
        of_cosqa,
        "code/API",
        "Given a web search about Python, find the function that answers it.",
        "Computational Use of Data Agreement (CoSQA)",
    ),
    "sealtools": Source(
        (
            File(
                f"{_SEAL}/tool.jsonl",
                "sha256:35e34aaec1f0793c2b5a5dff734cb925837988f59ed0fe4f410d67f3d8375f5c",
            ),
            File(
                f"{_SEAL}/test_out_domain.jsonl",
                "sha256:c2a86a3d3a5270f578e07f39a0973310cbcaec3b8d72166d7be38d21c9720be6",
            ),
            File(
                f"{_SEAL}/dev.jsonl",
                "sha256:53da12c9fab27e47eba4767ae3625b53bb6474215c38e5033b1fe11e84efacf6",
            ),
            File(
                f"{_SEAL}/test_in_domain.jsonl",
                "sha256:330020288948e711846417c2fca9a5980ef0f1adc01ad74dc38cc9ff7142811f",
            ),
        ),
        of_sealtools,
        "code/API",
        "Given a request that may need several tools, find the cards of the tools to call.",
        "Apache-2.0 (Seal-Tools)",
    ),
    "cranfield": Source(
        (
            File(
                f"{_SMART_FILES}/cran/cran.tar.gz",
                "sha256:8c48a8412e4a7e6e0dd5af99c959f8d75fdf88135602adc1a56aa22770652d64",
            ),
        ),
        of_cranfield,
        "academic",
        "Given a question of aeronautics, find abstracts that answer it.",
        "freely distributed for research (Cranfield 1400)",
    ),
    "med": Source(
        (
            File(
                f"{_SMART_FILES}/med/med.tar.gz",
                "sha256:07478afc5370ba3dfa66c8c1994ea56a2341cea8584af619a63eb51c31f26f1e",
            ),
        ),
        of_med,
        "medical",
        "Given a biomedical question, find abstracts that answer it.",
        "freely distributed for research (MEDLARS)",
    ),
}
"""Collections by name."""


@click.command()
@click.argument("names", nargs=-1)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--all", "everything", is_flag=True, help="Build all of them.")
def main(names: tuple[str, ...], folder: Path, everything: bool) -> None:
    """Build public collections in FOLDER: scifact, nfcorpus, cosqa, sealtools, cranfield, med."""
    unknown = sorted(set(names) - SOURCES.keys())
    if unknown or not (names or everything):
        raise click.UsageError(
            f"Unknown: {', '.join(unknown) or 'nothing named'}; there are {', '.join(SOURCES)}."
        )
    for name in SOURCES if everything else names:
        try:
            built = build_collection(name, SOURCES[name], folder)
        except EraError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{built}")


if __name__ == "__main__":
    main()
