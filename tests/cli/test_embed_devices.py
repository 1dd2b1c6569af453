"""Several devices of a machine: a real process for each, and the store of one run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_case import MODELS, done, run

from era_cache.cli import embed
from era_cache.cli.embed_devices import encode_on_devices
from era_cache.errors import EraError
from era_cache.store.contents import diff
from era_cache.store.store import Store


def words_of(toy, models, store, *more: object) -> list[str]:
    pair = ["--query-model", models["small"], "--doc-model", models["small"]]
    options = ["--align-sample", "random", "--align-documents", 10]
    return [str(word) for word in [toy, "--store", store, *pair, *options, *more]]


def command(words: list[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "era_cache", "embed", *words]


def test_two_processes_give_the_store_of_one_and_the_command_goes_on_as_ever(
    toy, models, tmp_path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    done(run(embed.main, *words_of(toy, models, one)))
    words = words_of(toy, models, two, "--device", "cpu,cpu", "--bm25", "--json")
    both = subprocess.run(command(words), capture_output=True, text=True, check=True)
    assert "Encoding on cpu, cpu" in both.stderr
    assert '"encoded": 0' in both.stdout
    assert Store.open(two).collection("toy").name == "toy"
    found = diff(Store.open(one), Store.open(two))
    assert [(row.rows_only_a, row.rows_only_b) for row in found.encoders] == [(0, 0)] * 2
    assert not found.collections.only_b
    segments = [len(e.segment_paths()) for e in Store.open(two).encoders()]
    assert max(segments) == 2


def test_one_that_fails_is_named_and_its_message_stands_above(toy, models, tmp_path) -> None:
    words = words_of(toy, models, tmp_path / "store", "--device", "cpu,nowhere:7")
    failed = subprocess.run(command(words), capture_output=True, text=True)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert re.search(r"Encoding on nowhere:7 \(1\) ended early", failed.stderr)
    done(run(embed.main, *words_of(toy, models, tmp_path / "store")))


def test_ctrl_c_stops_all_of_them(toy, models, tmp_path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    lines = (f'{{"_id": "d{n}", "text": "bees and honey {n}"}}\n' for n in range(100_000))
    (many / "corpus.jsonl").write_text("".join(lines))
    (many / "queries.jsonl").write_text('{"_id": "q", "text": "bees"}\n')
    words = words_of(many, models, tmp_path / "store", "--device", "cpu,cpu")
    started = subprocess.Popen(command(words), start_new_session=True, stderr=subprocess.PIPE)
    assert started.stderr is not None
    assert b"Encoding on" in started.stderr.readline()
    time.sleep(2)  # both are reading, or loading the model
    os.killpg(started.pid, signal.SIGINT)
    told = started.communicate(timeout=60)[1].decode()
    assert started.returncode == 1
    assert "Traceback" not in told
    assert told.count("Interrupted") >= 1, told
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--device", "cpu,"], 1, "a name is empty"),
        (["--device", "cpu,cpu", "--shard", "1/2"], 2, "--shard is for one process"),
        (["--device", "cpu,cpu", "--finish"], 2, "--finish is for one process"),
        (["--device", "cpu,cpu", "--max-cost", "1"], 2, "--max-cost is for one process"),
        (["--device", "cpu,cpu", "--engine", "ray"], 2, "brings its own workers"),
    ],
)
def test_what_goes_with_one_device_only_is_refused(case, options, code, message) -> None:
    result = run(embed.main, case / "beir", *MODELS, "--store", case / "store", *options)
    assert result.exit_code == code
    assert message in result.output
    assert not (case / "store").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_devices_are_none_where_there_is_no_gpu(case) -> None:
    words = [case / "beir", *MODELS, "--store", case / "store", "--device", "all"]
    result = run(embed.main, *words)
    assert result.exit_code == 1
    assert "no CUDA device" in result.output


@pytest.mark.parametrize(("count", "expected"), [(1, []), (3, [["cuda:0", "cuda:1", "cuda:2"]])])
def test_all_devices_are_those_that_torch_sees(case, monkeypatch, count, expected) -> None:
    begun = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(embed, "encode_on_devices", begun.append)
    done(run(embed.main, case / "beir", *MODELS, "--store", case / "store", "--device", "all"))
    assert begun == expected  # one device needs no other process


def test_a_dry_run_begins_no_process(case, monkeypatch) -> None:
    monkeypatch.setattr(embed, "encode_on_devices", lambda _: pytest.fail("begun"))
    words = [case / "beir", *MODELS, "--store", case / "store", "--device", "cpu,cpu"]
    done(run(embed.main, *words, "--dry-run"))


def test_a_process_that_is_killed_is_named(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["era-embed", "nowhere", "--query-model", "x"])
    with pytest.raises(EraError, match=r"Encoding on cpu \(2\), cpu \(2\) ended early"):
        encode_on_devices(["cpu", "cpu"])
