"""Workers of a real Ray that write to a store in a bucket themselves."""

from __future__ import annotations

import os
import signal

import pytest
from one_cluster import one_cluster

from era_cache.encode import ray_workers
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.encode.encoder import EncoderSettings, open_encoder
from era_cache.encode.ray_pool import Workers
from era_cache.encode.ray_workers import RayEncoder
from era_cache.store.contents import diff
from era_cache.store.open_store import create_store, open_store
from era_cache.store.store import Store

CONFIG = EmbedConfig(align_sample="random", align_documents=20)
SETTINGS = EncoderSettings()


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch):
    """A bucket, and a cluster that knows the way there."""
    _, url = s3
    monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / "cache"))
    with one_cluster():
        yield url


@pytest.mark.filterwarnings("ignore")
def test_two_workers_one_of_them_killed_make_the_store_of_one_process_in_a_bucket(
    toy_texts, models, bucket, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(ray_workers, "_CHUNK_ROWS", 8)
    monkeypatch.setattr(ray_workers, "_MERGED", 3)
    model = str(models["small"])
    one, alone = Store.create(tmp_path / "one"), open_encoder(model, SETTINGS)
    embed_collection(one, toy_texts, large=alone, small=alone, config=CONFIG)
    encoder = RayEncoder(model, open_encoder(model, SETTINGS), SETTINGS, Workers(2, 2, cpus=0.5))
    killed = []

    def kill(what: str, done: int, total: int) -> None:
        if done and not killed:
            killed.append(encoder.pool.pids[0])
            os.kill(killed[0], signal.SIGKILL)

    two = create_store(bucket)
    embed_collection(two, toy_texts, large=encoder, small=encoder, config=CONFIG, progress=kill)
    assert killed
    assert diff(one, open_store(bucket)).same
