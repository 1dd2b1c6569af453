"""era-embed with models behind an address: what it asks for, what it keeps, what it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from beir_folder import beir_of
from command_case import done, run
from planted import planted_texts

import era_cache
from benchmarks.embedding_server import EmbeddingServer, vector_of
from era_cache.cli import embed, fit, search
from era_cache.errors import EncoderError
from era_cache.store.store import Store
from era_cache.types import Role

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    beir_of(tmp_path, planted_texts())
    return tmp_path / "beir"


def words(beir: Path, server: EmbeddingServer, *options: object) -> list[str]:
    models = [f"openai:{name}@{server.address}" for name in ("big", "little")]
    store = beir.parent / "store"
    given = ["--query-model", models[0], "--doc-model", models[1], "--store", store, *options]
    return [str(word) for word in (beir, *given)]


def test_a_dry_run_says_what_it_costs_and_writes_nothing(beir) -> None:
    with EmbeddingServer() as server:
        options = ("--dry-run", "--json", "--large-price", 2, "--align-documents", 10)
        found = json.loads(done(run(embed.main, *words(beir, server, *options))).stdout)
        assert not server.bodies
        assert not (beir.parent / "store").exists()
        parts = {(one["what"], one["encoder"]): one for one in found["parts"]}
        large = [one for name, one in parts.items() if name[1] == "big"]
        assert found["cost"] == pytest.approx(sum(one["tokens"] for one in large) * 2e-6)
        assert parts["alignment documents", "big"]["missing"] == 10
        documents = parts["documents", "little"]
        assert documents["missing"] == documents["rows"] > 0
        assert documents["requests"] > 1
        assert documents["cost"] is None

        done(run(embed.main, *words(beir, server, *options[2:])))
        again = done(run(embed.main, *words(beir, server, *options)))
        assert not any(one["missing"] for one in json.loads(again.stdout)["parts"])
        shown = done(run(embed.main, *words(beir, server, "--dry-run"))).stdout
        assert "Nothing was encoded or written" in shown


def test_the_limit_of_money_ends_a_run_that_a_higher_one_goes_on_with(beir) -> None:
    with EmbeddingServer() as server:
        result = run(embed.main, *words(beir, server, "--max-cost", 1))
        assert result.exit_code == 2
        assert "--max-cost needs" in result.output
        words_there = sum(len(text.split()) for text in planted_texts().doc_texts)
        few = ("--small-price", 1, "--max-cost", words_there * 0.6e-6, "--batch-tokens", 50)
        result = run(embed.main, *words(beir, server, *few))
        assert result.exit_code == 1
        assert "is spent" in result.output
        assert sum(len(t.split()) * n for t, n in server.asked.items()) <= 0.6 * words_there
        stored = Store.open(beir.parent / "store").encoders()
        assert len(stored) == 1
        asked = dict(server.asked)
        assert len(asked) > 30
        done(run(embed.main, *words(beir, server)))
        kept = [text for text in planted_texts().doc_texts if text in asked]
        assert len(kept) > 30
        assert all(server.asked[text] <= 2 for text in kept)  # the large model's sample is one


def test_a_killed_run_loses_no_group_that_was_paid_for(beir) -> None:
    with EmbeddingServer(seconds=0.1) as server:
        code = (
            "import sys; from era_cache.encode import job;"
            "job.Job.groups = lambda _, rows: (rows[n:n+40] for n in range(0, len(rows), 40));"
            "from era_cache.cli.embed import main; main(sys.argv[1:])"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, *words(beir, server)],
            env={**os.environ, "OPENAI_API_KEY": KEY},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while len(server.asked) < 150 and time.monotonic() < end:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        store = Store.open(beir.parent / "store")
        (encoder,) = [one for one in store.encoders() if one.spec.role is Role.DOCUMENT]
        collection = store.collection("beir")
        kept = encoder.index().positions(collection.doc_keys) >= 0
        assert kept.sum() >= 40
        before = len(server.bodies)
        done(run(embed.main, *words(beir, server)))
        texts = planted_texts().doc_texts
        stored = {text for text, there in zip(texts, kept, strict=True) if there}
        little = [one for one in server.bodies[before:] if one["model"] == "little"]
        again = {text for one in little for text in one["input"]}
        assert set(texts) - stored <= again
        assert not stored & again
        found = store.encoders()
        (encoder,) = [
            one for one in found if one.spec.name == "little" and one.spec.role is Role.DOCUMENT
        ]
        right = np.stack([vector_of(text, 32) for text in texts])
        assert np.abs(encoder.vectors(collection.doc_keys) - right).max() < 0.01
        for path in (beir.parent / "store").rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_texts_that_a_server_refuses_are_told_all_at_once_or_left_out(beir) -> None:
    with EmbeddingServer(most_bytes=2000) as server:
        corpus = beir / "corpus.jsonl"
        long = json.dumps({"_id": "long", "text": "word " * 900})
        corpus.write_text(corpus.read_text() + long + "\n")
        result = run(embed.main, *words(beir, server))
        assert result.exit_code == 1
        assert "no vector (HTTP 400: maximum context length" in result.output
        assert "document 'long'" in result.output
        assert KEY not in result.output
        result = done(run(embed.main, *words(beir, server, "--skip-bad-rows")))
        assert "document 'long'" in result.output


def test_a_query_is_not_answered_by_another_model_than_the_stores(beir) -> None:
    with EmbeddingServer() as server:
        done(run(embed.main, *words(beir, server)))
        store, out = beir.parent / "store", beir.parent / "a"
        options = ["--labels", 40, "--set", "iterations=1", "--candidate", "era-dual"]
        done(run(fit.main, store, "beir", "--out", out, *options))
        models = [f"openai:{name}@{server.address}" for name in ("big", "little")]
        asked = [store, out, "some words", "--query-model", models[0], "--doc-model", models[1]]
        done(run(search.main, *asked))
        known = era_cache.QueryEncoder(
            out, query_model=models[0], doc_model=models[1], store=store, device="cpu"
        )
        assert known.encode(["some words"]).shape == (1, 32)
        server.seed = "retrained"
        result = run(search.main, *asked)
        assert result.exit_code == 1
        assert "Another model runs under the name" in result.output
        late = era_cache.QueryEncoder(
            out, query_model=models[0], doc_model=models[1], store=store, device="cpu"
        )
        with pytest.raises(EncoderError, match="Another model runs"):
            late.encode(["other words"])
