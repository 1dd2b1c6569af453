"""Shares of a collection: balanced, stable, and together the same as one run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from command_case import MODELS, case, done, embedded_in, run
from hash_encoder import HashEncoder

from era_cache.cli import embed
from era_cache.collection.keys import row_keys
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection, left_to_encode
from era_cache.encode.shard import parse_shard, share_of
from era_cache.errors import InputError
from era_cache.store.contents import diff
from era_cache.store.store import Store
from era_cache.types import Role

__all__ = ["case"]


@pytest.mark.parametrize(
    "text", ["", "0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/99999999", "1/2/3"]
)
def test_what_is_no_share_is_refused(text):
    with pytest.raises(InputError, match="expected I/N"):
        parse_shard(text)


def test_every_text_is_in_one_share_and_stays_there():
    keys = row_keys(Role.DOCUMENT, [f"text {n}" for n in range(7000)])
    shares = np.stack([share_of(keys, (number, 7)) for number in range(1, 8)])
    assert (shares.sum(axis=0) == 1).all()
    assert np.all(np.abs(shares.sum(axis=1) - 1000) < 150)
    more = row_keys(Role.DOCUMENT, [f"text {n}" for n in range(0, 9000, 2)])
    kept = np.flatnonzero(np.arange(0, 9000, 2) < 7000)
    assert (share_of(more, (3, 7))[kept] == shares[2][::2]).all()


@pytest.mark.parametrize("rule", ["random", "retrieved"])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shares_in_any_order_make_the_store_of_one_run(toy_texts, tmp_path, rule, order):
    config = EmbedConfig(align_documents=20, align_sample=rule)
    texts = toy_texts._replace(splits={})
    large, small = HashEncoder(8), HashEncoder(4, seed="s")

    def encode(name, shard):
        store = Store.create(tmp_path / name)
        one = replace(config, shard=shard)
        stored, _ = embed_collection(store, texts, large=large, small=small, config=one)
        left = left_to_encode(store, texts, stored, encoders=(large, small), config=one).lacks
        return store, left

    whole, _ = encode("whole", (1, 1))
    lefts = [encode("parts", (number, 3))[1] for number in order]
    assert lefts[0]
    assert lefts[1]
    assert not lefts[2]
    shared, _ = encode("parts", (1, 1))  # what --finish does
    assert diff(whole, shared).same
    collection = whole.collection(texts.name)
    for encoder in whole.encoders():
        keys = collection.keys_of(encoder.spec.role)
        index = encoder.index()
        keys = keys[index.positions(keys) >= 0]
        theirs = shared.encoder(encoder.spec.fingerprint).vectors(keys)
        assert (encoder.vectors(keys) == theirs).all()


def segment_counts(case):
    return {len(one.segment_paths()) for one in Store.open(case / "store").encoders()}


@pytest.mark.parametrize("rule", ["random", "retrieved"])
def test_the_last_share_finishes_and_finish_refuses_before(case, rule):
    (case / "log.txt").write_text("what they ask\nand what else\n")
    sample = ["--align-documents", 30, "--align-sample", rule, "--query-log", case / "log.txt"]

    def share(number):
        return embedded_in(case, "--shard", f"{number}/3", *sample)

    words = [case / "beir", *MODELS, "--store", case / "store", *sample]
    first = share(1)
    assert first["missing"]
    refused = run(embed.main, *words, "--finish")
    assert refused.exit_code == 1
    assert re.search(r"not complete: [0-9,]+ of .* documents by hash-16", refused.output)
    share(3)
    last = run(embed.main, *words, "--shard", "2/3")
    ending = "finishing the collection" if rule == "retrieved" else "the collection is complete"
    assert f"all others are: {ending}" in done(last).output
    assert segment_counts(case) != {1}  # as one run may leave them
    again = embedded_in(case, "--finish", *sample)
    assert not any(part["encoded"] for part in again["parts"])
    assert again["missing"] == []
    assert segment_counts(case) == {1}


@pytest.mark.parametrize("option", [["--finish"], ["--bm25"], ["--plan", "jobs"]])
def test_what_needs_all_documents_goes_with_no_share(case, option):
    words = [case / "beir", *MODELS, "--store", case / "store", "--shard", "1/2", *option]
    assert run(embed.main, *words).exit_code == 2


def test_finishing_nothing_is_an_error_and_makes_no_store(case):
    refused = run(embed.main, case / "beir", *MODELS, "--store", case / "none", "--finish")
    assert refused.exit_code == 1
    assert not (case / "none").exists()


def test_a_plan_tells_time_and_bytes_stores_nothing_and_writes_jobs_that_run(
    case, monkeypatch
) -> None:
    words = [str(w) for w in (case / "beir", *MODELS, "--store", case / "store")]
    monkeypatch.setattr("sys.argv", ["era-embed", *words, "--plan", "jobs", "--shards=4"])
    planned = run(embed.main, *words, "--plan", case / "jobs", "--shards", "4", "--json")
    parts = json.loads(done(planned).stdout)["parts"]
    documents = next(part for part in parts if part["what"] == "documents")
    assert documents["bytes"] == documents["missing"] * (16 * 2 + 16)
    assert documents["seconds"] > 0
    assert not (case / "store").exists()
    script = (case / "jobs" / "slurm.sh").read_text(encoding="utf-8")
    assert "#SBATCH --array=1-4\n" in script
    assert script.splitlines()[-1] == (
        f"{shlex.join(['era-embed', *words])} --shard $SLURM_ARRAY_TASK_ID/4"
    )
    job = json.loads((case / "jobs" / "kubernetes.json").read_bytes())
    assert job["spec"]["completions"] == 4
    (container,) = job["spec"]["template"]["spec"]["containers"]
    shell = container["command"]
    # The shell takes it apart again as it was given.
    seen = subprocess.run(
        [*shell[:2], shell[2].replace("era-embed", "printf '%s\\n'", 1)],
        env={"JOB_COMPLETION_INDEX": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert seen == [*words, "--shard", "3/4"]
