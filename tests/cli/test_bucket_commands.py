"""The commands on a store in a bucket say what they say of the same store in a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_case import MODELS, done, run

from era_cache.cli import embed, evaluate, fit, search, store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run_json(command, *words):
    return json.loads(done(run(command, *words, "--json")).stdout)


def fit_at(where, case: Path, out: str) -> dict:
    quick = ["--labels", 40, "--set", "iterations=2", "--device", "cpu"]
    return run_json(fit.main, where, "beir", "--out", case / out, *quick)


def without(found, *names):
    """The same, without what names the place or tells times."""
    if isinstance(found, dict):
        return {key: without(one, *names) for key, one in found.items() if key not in names}
    if isinstance(found, list):
        return [without(one, *names) for one in found if not tells_time(one)]
    return found


def tells_time(fact) -> bool:
    return isinstance(fact, dict) and str(fact.get("value", "")).endswith(" s")


def test_embed_fit_and_evaluate_in_a_bucket_as_in_a_folder(case, s3, cache) -> None:
    files, url = s3
    folder = case / "store"
    for where in (folder, url):
        words = [case / "beir", *MODELS, "--store", where]
        first = run_json(embed.main, *words)
        assert sum(part["encoded"] for part in first["parts"]) > 0
        again = run_json(embed.main, *words)
        assert sum(part["encoded"] for part in again["parts"]) == 0
    here, there = fit_at(folder, case, "a"), fit_at(url, case, "b")
    shutil.rmtree(cache)  # a teammate's machine
    cold = fit_at(url, case, "c")
    warm = fit_at(url, case, "d")
    apart = "seconds", "adapter", "created"
    assert without(here, *apart) == without(there, *apart)
    assert without(there, *apart) == without(cold, *apart) == without(warm, *apart)
    for name in ("b", "c", "d"):
        for one in (case / "a").glob("*.safetensors"):
            assert (case / name / one.name).read_bytes() == one.read_bytes()
    found = [
        run_json(evaluate.main, where, case / "a", "--device", "cpu", "--out", case / f"of-{n}")
        for n, where in enumerate((folder, url))
    ]
    apart = (*apart, "store", "out", "report", "files", "folder", "milliseconds")
    assert without(found[0], *apart) == without(found[1], *apart)
    sought = [
        run_json(search.main, where, case / "a", "--id", "q000", "--device", "cpu")
        for where in (folder, url)
    ]
    assert without(sought[0], *apart) == without(sought[1], *apart)
    assert not [name for name in files.find(url[5:]) if "tmp" in name]


def test_the_store_commands_read_a_bucket(case, s3) -> None:
    files, url = s3
    folder = case / "store"
    for where in (folder, url):
        run_json(embed.main, case / "beir", *MODELS, "--store", where)
    for name in ("info", "ls"):
        here, there = (run_json(store.main, name, where) for where in (folder, url))
        assert without(here, "embedded", "bytes") == without(there, "embedded", "bytes")
    assert run_json(store.main, "verify", url)["store"] == url
    assert run_json(store.main, "diff", folder, url)["collections"]["both"] == 1
    assert run_json(store.main, "compact", url)
    refused = run(store.main, "verify", url, "--quarantine")
    assert refused.exit_code == 2
    assert "bucket" in refused.output
    (name,) = (n for n in files.find(url[5:]) if "/segments/" in n and "16-document" in n)
    files.pipe_file(name, files.cat_file(name)[:-1] + b"\x7f")
    damaged = run(store.main, "verify", url)
    assert damaged.exit_code == 1
    assert f"{url}/{name.split('/store/')[1]}" in damaged.output
    gone = run(store.main, "gc", url)
    assert gone.exit_code == 1
    assert "era-store pull" in gone.output


def test_shares_meet_in_a_bucket(case, s3) -> None:
    _, url = s3
    words = [case / "beir", *MODELS, "--store", url]
    first = run_json(embed.main, *words, "--shard", "1/2")
    assert first["missing"]
    second = run_json(embed.main, *words, "--shard", "2/2")
    assert not second["missing"]
    whole = run_json(embed.main, case / "beir", *MODELS, "--store", case / "store")
    assert whole["version"] == second["version"]
    found = run_json(store.main, "diff", case / "store", url)
    assert all(not one["rows_only_a"] and not one["rows_only_b"] for one in found["encoders"])


def test_a_url_that_leads_nowhere_is_an_error_and_no_traceback(case, s3, monkeypatch) -> None:
    _, url = s3
    for command, words in (
        (fit.main, [url, "beir", "--out", case / "x"]),
        (store.main, ["info", "s3://no-such-bucket/at/all"]),
        (store.main, ["info", "nosuch://place"]),
        (embed.main, [case / "beir", *MODELS, "--store", "nosuch://place"]),
    ):
        refused = run(command, *words)
        assert refused.exit_code == 1, refused.output
        assert "Traceback" not in refused.output
        assert "Error:" in refused.output
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr("era_cache.store.bucket.connection._FIRST_WAIT", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    refused = run(store.main, "info", url)
    assert refused.exit_code == 1
    assert "connection" in refused.output


def test_a_dry_run_asks_a_bucket_about_versions_that_no_cache_holds(case, s3, cache) -> None:
    _, url = s3
    words = [case / "beir", *MODELS, "--store", url, "--align-documents", 5]
    run_json(embed.main, *words)
    with (case / "beir" / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "new", "text": "a text that was not there"}\n')
    shutil.rmtree(cache)  # a teammate's machine
    done(run(embed.main, *words, "--dry-run"))
