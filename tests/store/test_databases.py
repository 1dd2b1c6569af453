"""Vectors read out of real databases: all of them, right, under their ids; or a message."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_case import run

from era_cache.cli import store as store_commands
from era_cache.errors import InputError
from era_cache.store.exchange.databases import fetch_vectors, is_address

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = 2500
"""More than two blocks."""


@pytest.fixture
def rows() -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((ROWS, 8)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def _read(address: str, folder) -> tuple[dict[str, np.ndarray], str]:
    found = fetch_vectors(address, folder)
    ids = json.loads(found.ids.read_text("utf-8"))
    vectors = np.load(found.vectors)
    assert len(ids) == len(set(ids)) == len(vectors)
    return dict(zip(ids, vectors, strict=True)), found.source


def _same(found, ids, rows) -> None:
    assert set(found) == set(ids)
    for one, row in zip(ids, rows, strict=True):
        np.testing.assert_allclose(found[one], row, atol=1e-6)


def test_qdrant(rows, tmp_path) -> None:
    qdrant = pytest.importorskip("qdrant_client")
    client = qdrant.QdrantClient(path=str(tmp_path / "q"))
    size = qdrant.models.VectorParams(size=8, distance=qdrant.models.Distance.DOT)
    client.create_collection("plain", vectors_config=size)
    client.create_collection("named", vectors_config={"a": size, "b": size})
    ids = [f"d{row}" for row in range(ROWS)]
    client.upload_collection("plain", rows, payload=[{"doc": one} for one in ids])
    points = [
        qdrant.models.PointStruct(
            id=row + 1, vector={"a": rows[row].tolist(), "b": (-rows[row]).tolist()}
        )
        for row in range(50)
    ]
    client.upsert("named", points)
    client.close()
    found, source = _read(f"qdrant://{tmp_path}/q/plain?id=doc", tmp_path)
    _same(found, ids, rows)
    assert source == f"qdrant://{tmp_path}/q/plain"
    found, _ = _read(f"qdrant://{tmp_path}/q/named?vector=b", tmp_path)
    _same(found, [str(row + 1) for row in range(50)], -rows[:50])
    for address, words in (
        (f"qdrant://{tmp_path}/q/none", "cannot be read"),
        (f"qdrant://{tmp_path}/q/plain?id=other", "has no id"),
        (f"qdrant://{tmp_path}/q/named?vector=c", "cannot be read"),
        (f"qdrant://{tmp_path}/nowhere/x", "no such folder"),
        (f"qdrant://{tmp_path}/q/plain?key=doc", "no option 'key'"),
        ("qdrant://localhost:1/x", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            fetch_vectors(address, tmp_path)


def test_lancedb(rows, tmp_path) -> None:
    lancedb = pytest.importorskip("lancedb")
    ids = [f"d{row}" for row in range(ROWS)]
    base = lancedb.connect(str(tmp_path / "l"))
    held = [{"id": i, "vector": row} for i, row in zip(ids, rows.tolist(), strict=True)]
    base.create_table("toy", held)
    base.create_table("other", [{"key": 7, "v": rows[0].tolist()}])
    _same(_read(f"lancedb://{tmp_path}/l/toy", tmp_path)[0], ids, rows)
    _same(_read(f"lancedb://{tmp_path}/l/other?id=key&vector=v", tmp_path)[0], ["7"], rows[:1])
    for name in ("none", "other"):
        with pytest.raises(InputError, match="cannot be read"):
            fetch_vectors(f"lancedb://{tmp_path}/l/{name}", tmp_path)


def test_pgvector(rows, tmp_path) -> None:
    pgserver = pytest.importorskip("pgserver")
    psycopg = pytest.importorskip("psycopg")
    server = pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    address = server.get_uri()
    try:
        ids = [f"d{row}" for row in range(ROWS)]
        with psycopg.connect(address, autocommit=True) as db:
            db.execute("CREATE EXTENSION vector")
            db.execute('CREATE SCHEMA "my shop"; CREATE TABLE "my shop".t (id text, e vector(8))')
            insert = 'INSERT INTO "my shop".t VALUES (%s, %s)'
            held = [(i, str(row)) for i, row in zip(ids, rows.tolist(), strict=True)]
            db.cursor().executemany(insert, held)
            db.execute("CREATE TABLE holes (id int, embedding vector(8))")
            db.execute("INSERT INTO holes VALUES (1, NULL)")
        found, source = _read(f"{address}&table=my%20shop.t&vector=e", tmp_path)
        _same(found, ids, rows)
        assert "@" not in source
        for more, words in (
            ("", "say which table"),
            ("&table=none", "does not exist"),
            ('&table=t"; DROP TABLE holes; --', "does not exist"),
            ("&table=holes", "no vector"),
        ):
            with pytest.raises(InputError, match=words):
                fetch_vectors(address + more, tmp_path)
        with psycopg.connect(address) as db:
            assert db.execute("SELECT count(*) FROM holes").fetchone() == (1,)
    finally:
        server.cleanup()


def test_what_an_address_is() -> None:
    assert is_address("qdrant://host/x")
    for text in ("vectors.npy", "http://host/x", "qdrant", "/qdrant://x", "./postgresql.npy"):
        assert not is_address(text)


def test_a_database_has_ids_of_its_own(toy, tmp_path) -> None:
    words = ["--role", "document", "--model", "m", "--vectors", "lancedb:///x/y"]
    result = run(store_commands.main, "import", tmp_path / "s", toy, *words, "--in-corpus-order")
    assert (result.exit_code, "has ids of its own" in result.output) == (2, True)


def test_secrets_stay_out_of_messages(tmp_path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError) as caught:
        fetch_vectors("postgresql://me:secret@127.0.0.1:1/db?table=t", tmp_path)
    assert "secret" not in str(caught.value)
