"""Workers of a real Ray on this machine: the same store, whoever dies on the way."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from command_case import run
from one_cluster import one_cluster

from era_cache.cli import embed
from era_cache.encode import ray_pool, ray_workers
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.encode.encoder import EncoderSettings, open_encoder
from era_cache.encode.ray_pool import Workers
from era_cache.encode.ray_workers import RayEncoder
from era_cache.errors import EncoderError, InputError
from era_cache.store.contents import diff
from era_cache.store.store import Store

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = EmbedConfig(align_sample="random", align_documents=20)
SETTINGS = EncoderSettings()


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with one_cluster():
        yield


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(ray_workers, "_CHUNK_ROWS", 8)
    monkeypatch.setattr(ray_workers, "_MERGED", 3)


def by_ray(model, workers) -> RayEncoder:
    return RayEncoder(str(model), open_encoder(str(model), SETTINGS), SETTINGS, workers)


def encoded(path, texts, encoder, **options) -> Store:
    store = Store.create(path)
    embed_collection(store, texts, large=encoder, small=encoder, config=CONFIG, **options)
    return store


@pytest.mark.usefixtures("small_chunks")
def test_two_workers_one_of_them_killed_make_the_store_of_one_process(
    toy_texts, models, tmp_path
) -> None:
    one = encoded(tmp_path / "one", toy_texts, open_encoder(str(models["small"]), SETTINGS))
    encoder = by_ray(models["small"], Workers(2, 2, cpus=0.5))
    killed = []

    def kill(what: str, done: int, total: int) -> None:
        if done and not killed:
            killed.append(encoder.pool.pids[0])
            os.kill(killed[0], signal.SIGKILL)

    two = encoded(tmp_path / "two", toy_texts, encoder, progress=kill)
    assert killed
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)
    assert diff(one, two).same
    stored = one.collection(toy_texts.name)
    for ours in one.encoders():
        keys = stored.keys_of(ours.spec.role)
        theirs = two.encoder(ours.spec.fingerprint).vectors(keys)
        np.testing.assert_array_equal(ours.vectors(keys), theirs)
    before = [path.name for path in two.encoders()[0].segment_paths()]
    encoded(tmp_path / "two", toy_texts, encoder)  # twice is harmless
    assert [path.name for path in two.encoders()[0].segment_paths()] == before


def test_a_cluster_without_room_says_what_it_has(toy_texts, models, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ray_pool, "_PATIENCE", 3.0)
    encoder = by_ray(models["small"], Workers(1, 1, cpus=64))
    with pytest.raises(EncoderError, match=r"64 processors .* it has 2 processors .*Lower --worke"):
        encoded(tmp_path / "s", toy_texts, encoder)


@pytest.mark.usefixtures("small_chunks")
def test_texts_that_kill_every_worker_are_named(toy_texts, models, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ray_pool, "_ATTEMPTS", 2)
    encoder = by_ray(models["small"], Workers(1, 1, cpus=0.5))
    texts = toy_texts._replace(doc_texts=["word " * 5, *list(toy_texts.doc_texts)[1:]])

    class Deadly(ray_workers._Worker):
        def encode(self, chunk, config):
            if chunk.ids[0] == toy_texts.doc_ids[0]:
                os._exit(1)
            return super().encode(chunk, config)

    monkeypatch.setattr(ray_workers, "_Worker", Deadly)
    with pytest.raises(EncoderError, match=rf"2 workers died .*'{toy_texts.doc_ids[0]}'"):
        encoded(tmp_path / "s", texts, encoder)


def test_a_worker_that_finds_another_model_stops_everything(toy_texts, models, tmp_path) -> None:
    encoder = by_ray(models["small"], Workers(1, 1, cpus=0.5))
    encoder._settings = EncoderSettings(truncate_dim=8)
    with pytest.raises(EncoderError, match="other files or settings"):
        encoded(tmp_path / "s", toy_texts, encoder)
    assert not list((tmp_path / "s" / "encoders").glob("*/segments/*"))


def test_the_command_runs_it_and_refuses_nonsense(toy, models, tmp_path) -> None:
    words = [toy, "--store", tmp_path / "s", "--query-model", models["small"]]
    words += ["--doc-model", models["small"], "--align-sample", "random"]
    done = run(embed.main, *words, "--engine", "ray", "--workers", "1:2", "--worker-cpus", "0.5")
    assert done.exit_code == 0, done.output
    again = run(embed.main, *words)
    assert "Nothing to encode" in again.output
    assert run(embed.main, *words, "--engine", "ray", "--workers", "3:2").exit_code == 2
    assert run(embed.main, *words, "--address", "auto").exit_code == 2


def test_a_model_behind_an_address_is_not_for_workers(models) -> None:
    encoder = open_encoder(str(models["small"]), SETTINGS)
    encoder.served = True
    with pytest.raises(InputError, match="requests-in-flight"):
        RayEncoder("openai:x", encoder, SETTINGS, Workers())
