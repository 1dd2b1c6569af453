from __future__ import annotations

import errno
import importlib
import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import click
import h5py
import pytest
from beir_folder import CORPUS, QRELS, beir
from click.testing import CliRunner
from hash_encoder import HashEncoder

from era_cache.cli import embed, evaluate, fit
from era_cache.cli import store as store_command
from era_cache.cli.common import INTERRUPTED
from era_cache.collection.beir import read_beir
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.fitting.candidates import DEFAULT
from era_cache.store.store import Store

BIN = Path(__file__).parents[2] / "bin"
MODELS = ["--query-model", "./no-such-large", "--doc-model", "./no-such-small"]


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def assert_fails(result, *words):
    """One error message on stderr that holds all words, nothing on stdout, exit code 1."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.output
    for word in words:
        assert str(word) in result.stderr


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def collection(tmp_path):
    return beir(tmp_path)


@pytest.fixture
def hash_encoders(monkeypatch):
    """Let era-embed run without a model; gives the two encoders, which count their texts."""
    pair = HashEncoder(48, seed="large"), HashEncoder(32, seed="small")
    monkeypatch.setattr(embed, "_encoders", lambda *_: pair)
    return pair


@pytest.fixture
def adapter(built_adapter, tmp_path):
    return shutil.copytree(built_adapter, tmp_path / "adapter")


# era-embed: a wrong collection


# What is wrong with a row is the reader's to find (tests/collection/test_beir.py).
@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("corpus.jsonl", '{"_id": "d2"', ["corpus.jsonl line 4", "JSON"]),
        ("queries.jsonl", '{"_id": "q3", "text": " "}', ["queries.jsonl line 3", "'q3'"]),
        ("qrels/test.tsv", "q9\td1\t1", ["test.tsv line 5", "'q9'", "queries.jsonl"]),
        ("meta.json", '{"name": "../up"}', ["'../up'", "name"]),
    ],
)
def test_embed_says_which_line_of_which_file_is_wrong(collection, tmp_path, name, line, words):
    with (collection / name).open("a") as file:
        file.write(line + "\n")
    result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert_fails(result, *words)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("missing", [".", "corpus.jsonl", "queries.jsonl"])
def test_embed_names_what_is_missing(collection, tmp_path, missing):
    gone = collection / missing
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert_fails(result, collection, missing.strip("."))


def test_embed_skips_bad_rows_where_asked_and_counts_them(tmp_path, hash_encoders):
    beir(tmp_path / "more", [*CORPUS, CORPUS[0]], qrels=QRELS + "q9\td1\t1\n")
    collection = tmp_path / "more" / "beir"
    options = ["--store", tmp_path / "store", "--json", "--skip-bad-rows"]
    result = run(embed.main, collection, *MODELS, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dropped"]["bad_rows"] == 2
    assert "2 bad rows skipped" in result.stderr


@pytest.mark.parametrize(
    ("options", "meta", "ignored", "said"),
    [
        ([], None, False, True),
        ([], '{"ignore_identical_ids": true}', True, False),
        (["--ignore-identical-ids"], None, True, False),
        (["--keep-identical-ids"], '{"ignore_identical_ids": true}', False, False),
    ],
)
def test_embed_tells_where_queries_are_documents(
    tmp_path, hash_encoders, options, meta, ignored, said
) -> None:
    queries = [
        {"_id": "d1", "text": "first  text"},  # without its title, other white space
        {"_id": "d2", "text": "something else"},
        {"_id": "q3", "text": "third text"},
    ]
    collection = beir(tmp_path, queries=queries, qrels="d1\td2\t1\nd2\td3\t1\nq3\td1\t1\n")
    if meta:
        (collection / "meta.json").write_text(meta)
    result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store", *options)
    assert result.exit_code == 0, result.output
    words = "2 of 3 queries have the id of a document, 1 of them its text"
    assert (words in result.stderr) is said
    assert ("--ignore-identical-ids" in result.stderr) is said
    stored = Store.open(tmp_path / "store").collection("beir")
    assert stored.ignore_identical_ids is ignored


def test_what_file_managers_leave_is_neither_data_nor_in_the_way(
    collection, tmp_path, hash_encoders, built_hash_store
) -> None:
    folders = [tmp_path / name for name in ("store", "adapter", "swept", "results")]
    for folder in (*folders, collection / "qrels"):
        (folder / "@eaDir").mkdir(parents=True)
        for name in ("._test.tsv", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\xff\0")
    quick = ["--labels", "40", "--set", "folds=2", "--set", "iterations=2"]
    for command, *words in (
        (embed.main, collection, *MODELS, "--store", folders[0]),
        (fit.main, built_hash_store, "toy", "--out", folders[1], *quick),
        (fit.main, "sweep", built_hash_store, "toy", "--out", folders[2], "--grid", "scales=1"),
        (evaluate.main, "each", built_hash_store, "toy", "--out", folders[3], *quick),
    ):
        result = run(command, *words)
        assert result.exit_code == 0, result.output
    assert all((folder / "._test.tsv").read_bytes() == b"\xff\0" for folder in folders)


# era-embed: models and stores


def test_embed_refuses_a_model_folder_that_is_not_there(collection, tmp_path):
    result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert_fails(result, "./no-such-large", "no such folder")


def test_embed_refuses_a_template_without_text(collection, tmp_path):
    write_lines(tmp_path / "model" / "config.json", ["{}"])
    options = ["--query-model", tmp_path / "model", "--doc-model", tmp_path / "model"]
    template = ["--large-query-template", "Query: {txt}", "--store", tmp_path / "store"]
    assert_fails(run(embed.main, collection, *options, *template), "'Query: {txt}'", "{text}")


def test_embed_refuses_a_store_path_that_is_a_file(collection, tmp_path, hash_encoders):
    (tmp_path / "store").write_text("mine")
    result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert_fails(result, tmp_path / "store", "A file is in the way")
    assert (tmp_path / "store").read_text() == "mine"


def test_embed_refuses_a_folder_of_other_files_as_store(collection, tmp_path, hash_encoders):
    write_lines(tmp_path / "store" / "thesis.tex", ["mine"])
    result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert_fails(result, "thesis.tex", "not a store")


def test_embed_reports_what_was_encoded_and_then_that_nothing_is_left(toy, tmp_path, hash_encoders):
    arguments = [toy, *MODELS, "--store", tmp_path / "store", "--align-documents", 5]
    result = run(embed.main, *arguments, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["collection"] == "toy"
    encoded = {(p["what"], p["encoder"]): (p["encoded"], p["cached"]) for p in report["parts"]}
    assert encoded == {
        ("documents", "hash-32"): (30, 0),
        ("queries", "hash-32"): (20, 0),
        ("queries", "hash-48"): (20, 0),
        ("alignment documents", "hash-48"): (5, 0),
    }
    assert [encoder.encoded for encoder in hash_encoders] == [25, 50]
    again = run(embed.main, *arguments)
    assert "Nothing to encode: all 75 texts were in the store already." in again.stdout
    assert [encoder.encoded for encoder in hash_encoders] == [25, 50]


def test_embed_mentions_instructions_that_the_template_leaves_out(toy, tmp_path, hash_encoders):
    result = run(embed.main, toy, *MODELS, "--store", tmp_path / "store")
    assert "--large-query-template" in result.stderr
    assert "instruction" not in result.stdout


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "The file system is read-only")],
)
def test_embed_says_what_to_do_when_the_store_cannot_be_written(
    collection, tmp_path, hash_encoders, monkeypatch, number, advice
):
    def refuse(*_args, **_options):
        # As HDF5 words it.
        raise OSError(number, f"Can't write data (file write failed\n, errno = {number}, more)")

    with monkeypatch.context() as patch:
        patch.setattr(h5py.File, "create_dataset", refuse)
        result = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert_fails(result, tmp_path / "store", os.strerror(number), advice)
    assert list((tmp_path / "store").rglob(".tmp-*")) == []
    again = run(embed.main, collection, *MODELS, "--store", tmp_path / "store")
    assert again.exit_code == 0


# Interrupting era-embed

SLOW_EMBED = """
import sys, time
sys.path[:0] = {path!r}
from era_cache.cli import embed
from hash_encoder import HashEncoder

class Slow(HashEncoder):
    def encode(self, texts, role):
        for item in super().encode(texts, role):
            time.sleep({pause})
            yield item
            sys.stderr.write("row\\n")
            sys.stderr.flush()

embed._encoders = lambda *options: (Slow(48, "large"), Slow(32, "small"))
embed.main()
"""


def test_ctrl_c_keeps_the_rows_that_are_done_and_the_next_run_completes(toy, tmp_path):
    arguments = [toy, *MODELS, "--store", tmp_path / "store", "--json"]
    arguments = [str(argument) for argument in arguments]
    slow = [sys.executable, "-c", SLOW_EMBED.format(path=sys.path, pause=0.2), *arguments]
    with subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        before = []
        while before.count("row\n") < 4:
            before.append(job.stderr.readline())
            assert job.poll() is None or before[-1], "it ended early"
        job.send_signal(signal.SIGINT)
        stdout, stderr = job.communicate(timeout=30)
    assert job.returncode == 1
    assert stdout == ""
    assert f"Error: {INTERRUPTED}" in stderr
    assert "Traceback" not in stderr
    done = subprocess.run(
        [sys.executable, "-c", SLOW_EMBED.format(path=sys.path, pause=0), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    documents = json.loads(done.stdout)["parts"][0]
    assert documents["what"] == "documents"
    assert 4 <= documents["cached"] < 30
    assert documents["encoded"] == 30 - documents["cached"]
    rows = json.loads(run(store_command.main, "info", tmp_path / "store", "--json").stdout)
    assert len(rows) == 4
    assert all(row["stored"] == row["of"] for row in rows)


# Stores that are none


@pytest.fixture(params=["missing", "file", "folder", "garbage", "newer"])
def no_store(request, tmp_path):
    """A path that holds no readable store, and a word of the message."""
    path = tmp_path / "store"
    if request.param == "file":
        path.write_text("x")
    elif request.param != "missing":
        path.mkdir()
    if request.param == "garbage":
        (path / "store.json").write_bytes(b"\x00\xff{")
        return path, "not valid JSON"
    if request.param == "newer":
        (path / "store.json").write_text('{"format": "era-store", "version": 99}')
        return path, "Install a newer ERA Cache"
    return path, "not a store"


def test_every_command_that_reads_refuses_what_is_no_store(no_store, tmp_path):
    path, word = no_store
    assert_fails(run(store_command.main, "ls", path), path, word)
    assert_fails(run(store_command.main, "info", path), path, word)
    assert_fails(run(fit.main, path, "toy", "--out", tmp_path / "out"), path, word)
    assert_fails(run(evaluate.main, path, tmp_path / "out"), path, word)


def test_unknown_collection_is_named_with_those_that_exist(built_hash_store, tmp_path):
    out = tmp_path / "out"
    for result in (
        run(fit.main, built_hash_store, "other", "--out", out),
        run(store_command.main, "info", built_hash_store, "other"),
    ):
        assert_fails(result, "'other'", "toy")


def test_listing_an_empty_store_is_no_error(tmp_path):
    Store.create(tmp_path / "store")
    result = run(store_command.main, "ls", tmp_path / "store")
    assert result.exit_code == 0
    assert result.stdout.split("\n") == ["no encoders yet", "", "no collections yet", ""]


# era-fit and era-eval


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--labels", "90"], ["0.9", "40%"]),
        (["--split", "source"], ["train", "--split paper"]),
        (["--query-encoder", "nobody"], ["toy", "hash-32"]),
        (["--doc-encoder", "nobody"], ["'nobody'", "hash-16"]),
        (["--device", "abacus"], ["'abacus'"]),
    ],
)
def test_fit_explains_what_it_cannot_do(built_hash_store, tmp_path, options, words):
    result = run(fit.main, built_hash_store, "toy", "--out", tmp_path / "out", *options)
    assert_fails(result, *words)


def test_fit_leaves_a_folder_of_other_files_alone(built_hash_store, tmp_path):
    write_lines(tmp_path / "out" / "thesis.tex", ["mine"])
    result = run(fit.main, built_hash_store, "toy", "--out", tmp_path / "out")
    assert_fails(result, tmp_path / "out", "thesis.tex")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_fit_and_eval_refuse_a_file_as_folder(built_hash_store, built_adapter, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = run(fit.main, built_hash_store, "toy", "--out", tmp_path / "out")
    assert_fails(result, tmp_path / "out", "file")
    result = run(evaluate.main, built_hash_store, built_adapter, "--out", tmp_path / "out")
    assert_fails(result, tmp_path / "out", "file")


def test_eval_refuses_a_folder_that_is_no_adapter(built_hash_store, built_adapter, tmp_path):
    missing = tmp_path / "nowhere"
    assert_fails(run(evaluate.main, built_hash_store, missing), missing, "not an adapter")
    result = run(evaluate.main, built_hash_store, built_adapter, "--with", missing)
    assert_fails(result, missing, "not an adapter")


def test_eval_refuses_a_damaged_adapter(built_hash_store, adapter):
    tensors = adapter / "adapter.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x7f")
    assert_fails(run(evaluate.main, built_hash_store, adapter), tensors, "damaged")
    (adapter / "config.json").write_text("{")
    assert_fails(run(evaluate.main, built_hash_store, adapter), adapter / "config.json", "JSON")


def test_eval_refuses_an_adapter_of_other_encoders(toy, adapter, tmp_path):
    other = Store.create(tmp_path / "store")
    large, small = HashEncoder(32, seed="other"), HashEncoder(16, seed="other")
    embed_collection(other, read_beir(toy), large=large, small=small, config=EmbedConfig())
    result = run(evaluate.main, other.path, adapter)
    expected = json.loads((adapter / "config.json").read_text())["encoders"]["query"]
    assert_fails(result, expected["fingerprint"][:12], "hash-32", "store it was fitted on")
    assert not (adapter / "evaluation").exists()


@pytest.mark.parametrize("measure", ["nDCG@ten", "nDCG@0", "Pleasure", ""])
def test_eval_refuses_an_unknown_measure(built_hash_store, built_adapter, measure):
    result = run(evaluate.main, built_hash_store, built_adapter, "--measures", measure)
    assert_fails(result, f"'{measure}'")


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "The file system is read-only")],
)
def test_fit_and_eval_say_what_to_do_when_nothing_can_be_written(
    built_hash_store, built_adapter, adapter, tmp_path, monkeypatch, number, advice
):
    def refuse(_descriptor):
        raise OSError(number, os.strerror(number))

    before = {p: p.read_bytes() for p in adapter.rglob("*.json")}
    monkeypatch.setattr("era_cache.disk.files.os.fsync", refuse)
    result = run(fit.main, built_hash_store, "toy", "--labels", "40", "--out", adapter)
    assert_fails(result, adapter.name, advice)
    assert {p: p.read_bytes() for p in adapter.rglob("*.json")} == before
    result = run(evaluate.main, built_hash_store, built_adapter, "--out", tmp_path / "evaluated")
    assert_fails(result, tmp_path / "evaluated", advice)
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_fit_prints_its_result_on_stdout_and_progress_on_stderr(built_hash_store, tmp_path):
    options = ["--out", tmp_path / "out", "--labels", "40%", "--curve", "20,40", "--json"]
    result = run(fit.main, built_hash_store, "toy", *options)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["queries"] == {"train": 8, "validation": 2, "test": 10}
    assert summary["alignment_documents"] == 30
    assert summary["chosen"] in summary["validation"]
    assert set(summary["validation"]) == set(DEFAULT)
    assert "fitting era" in result.stderr
    assert [path.name for path in (tmp_path / "out" / "curve").iterdir()] == ["20"]


def test_fit_ships_the_candidate_that_was_asked_for(built_hash_store, tmp_path):
    options = ["--out", tmp_path / "out", "--labels", "40", "--candidate", "aligned"]
    result = run(fit.main, built_hash_store, "toy", *options)
    assert result.exit_code == 0, result.output
    assert "Chosen: aligned" in result.stdout
    assert f"Next: era-eval {built_hash_store} {tmp_path / 'out'}" in result.stdout
    assert json.loads((tmp_path / "out" / "config.json").read_text())["chosen"] == "aligned"


def test_eval_writes_the_report_next_to_the_adapter(built_hash_store, adapter):
    options = ["--json", "--runs", "--measures", "RR, P@5"]
    result = run(evaluate.main, built_hash_store, adapter, *options)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["measures"] == ["nDCG@10", "RR", "P@5"]
    out = adapter / "evaluation"
    assert json.loads((out / "evaluation.json").read_text("utf-8")) == record
    names = {path.name for path in out.iterdir()}
    assert names == {
        "evaluation.json",
        "fits",
        "queries.json",
        "report.html",
        "results.json",
        "runs",
        "table.csv",
        "table.md",
        "table.tex",
        "details.tex",
    }
    runs = {path.stem for path in (out / "runs").iterdir()}
    assert runs == {"qrels", *(candidate["name"] for candidate in record["candidates"])}


def test_ids_with_blanks_forbid_trec_files_only(toy_texts, tmp_path):
    folder = tmp_path / "people"
    (folder / "qrels").mkdir(parents=True)
    names = {old: old.replace("d", "Doc No ") for old in toy_texts.doc_ids}
    for name, ids, texts in (
        ("corpus", names.values(), toy_texts.doc_texts),
        ("queries", toy_texts.query_ids, toy_texts.query_texts),
    ):
        rows = ({"_id": i, "text": text} for i, text in zip(ids, texts, strict=True))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (part,) = toy_texts.splits.values()
    judged = [
        f"{toy_texts.query_ids[q]}\t{names[toy_texts.doc_ids[d]]}\t{grade}"
        for q, d, grade in zip(*part, strict=True)
    ]
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged))
    (tmp_path / "run.tsv").write_text(
        "query_id\tdoc_id\tscore\n" + "\n".join(f"{line}.25" for line in judged)
    )
    store = Store.create(tmp_path / "store")
    embed_collection(
        store,
        read_beir(folder),
        large=HashEncoder(32),
        small=HashEncoder(16, seed="small"),
        config=EmbedConfig(),
    )
    result = run(fit.main, store.path, "people", "--out", tmp_path / "a", "--labels", "40")
    assert result.exit_code == 0, result.output
    options = ["--run", f"perfect={tmp_path / 'run.tsv'}", "--runs"]
    result = run(evaluate.main, store.path, tmp_path / "a", *options)
    # The report is there, and only then what a TREC file has no means to quote is told.
    assert result.exit_code == 1
    assert "qrels.trec cannot be written: the document id 'Doc No " in result.stderr
    assert re.search(r"perfect .*\^1\.000", result.stdout)


def test_eval_writes_no_runs_unless_asked(built_hash_store, adapter):
    assert run(evaluate.main, built_hash_store, adapter).exit_code == 0
    assert not (adapter / "evaluation" / "runs").exists()


@pytest.mark.parametrize("options", [["--split-seed", "-1"], ["--seed", "99999999999999999999"]])
def test_seeds_out_of_range_are_usage_errors(built_hash_store, tmp_path, options):
    result = run(fit.main, built_hash_store, "toy", "--out", tmp_path / "a", *options)
    assert result.exit_code == 2


def test_an_impossible_share_of_the_curve_is_said_before_anything_is_fitted(
    built_hash_store, tmp_path
):
    options = ["--labels", "20", "--curve", "20,100", "--out", tmp_path / "a"]
    assert_fails(run(fit.main, built_hash_store, "toy", *options), "at most 40%")
    assert not (tmp_path / "a").exists()


def test_eval_prints_a_table_and_where_the_report_is(built_hash_store, built_adapter, tmp_path):
    result = run(evaluate.main, built_hash_store, built_adapter, "--out", tmp_path / "here")
    assert result.exit_code == 0, result.output
    assert "nDCG@10" in result.stdout
    assert result.stdout.rstrip().endswith(str(tmp_path / "here" / "report.html"))
    assert result.stderr == "measuring on the test queries …\n"


def test_store_lists_what_it_holds_as_json(built_hash_store):
    listed = json.loads(run(store_command.main, "ls", built_hash_store, "--json").stdout)
    assert {(e["encoder"], e["role"], e["rows"]) for e in listed["encoders"]} == {
        ("hash-32", "query", 20),
        ("hash-32", "document", 30),
        ("hash-16", "query", 20),
        ("hash-16", "document", 30),
    }
    assert [(c["collection"], c["documents"]) for c in listed["collections"]] == [("toy", 30)]


def test_store_info_is_a_table_of_stored_rows(built_hash_store):
    lines = run(store_command.main, "info", built_hash_store, "toy").stdout.splitlines()
    columns = ["collection", "encoder", "role", "fingerprint", "stored", "of"]
    assert lines[0].split() == columns  # a prompt is shown where there is one
    assert (
        sorted(line.split()[-2:] for line in lines[1:]) == [["20", "20"]] * 2 + [["30", "30"]] * 2
    )


def test_an_unknown_subcommand_is_named_with_the_nearest():
    result = run(store_command.main, "inof", "somewhere")
    assert result.exit_code == 2
    assert "No subcommand 'inof'. Did you mean 'info'? (There are compact, " in result.stderr


def test_a_reader_that_goes_away_is_no_error(built_hash_store):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, BIN / "era-store", "ls", built_hash_store]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# Options and help


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (embed.main, []),
        (embed.main, ["notes", *MODELS]),
        (embed.main, ["notes", *MODELS, "--store", "s", "--align-documents", "0"]),
        (embed.main, ["notes", *MODELS, "--store", "s", "--dtype", "int4"]),
        (embed.main, ["notes", *MODELS, "--store", "s", "--no-such-option"]),
        (fit.main, ["store", "toy"]),
        (fit.main, ["store", "toy", "--out", "o", "--labels", "-1"]),
        (fit.main, ["store", "toy", "--out", "o", "--labels", "101%"]),
        (fit.main, ["store", "toy", "--out", "o", "--labels", "nan"]),
        (fit.main, ["store", "toy", "--out", "o", "--labels", "many"]),
        (fit.main, ["store", "toy", "--out", "o", "--curve", "5,x"]),
        (fit.main, ["store", "toy", "--out", "o", "--candidate", "best"]),
        (evaluate.main, ["store"]),
        (evaluate.main, ["store", "adapter", "--seed", "x"]),
        (store_command.main, ["list"]),
        (store_command.main, ["ls"]),
    ],
)
def test_wrong_use_of_options_exits_with_2(command, arguments):
    result = run(command, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


COMMANDS = {
    "era-embed": embed.main,
    "era-fit": fit.main,
    "era-eval": evaluate.main,
    "era-store": store_command.main,
    "era-store ls": store_command.main.commands["ls"],
    "era-store info": store_command.main.commands["info"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(name):
    command = COMMANDS[name]
    result = run(command, "--help")
    assert result.exit_code == 0
    lines = result.stdout.partition("Example:\n")[2].partition("Options:")[0]
    words = lines.replace("\\\n", " ").split()
    assert words[: len(name.split())] == name.split()
    context = click.Context(command)
    command.parse_args(context, words[len(name.split()) :])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_that_fits_80_columns(name):
    command = COMMANDS[name]
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []
    shown = CliRunner().invoke(command, ["--help"], terminal_width=80).stdout
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", ["era-embed", "era-fit", "era-eval", "era-store"])
def test_launcher_shows_version(name):
    command = [sys.executable, BIN / name, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    version = importlib.import_module("era_cache").__version__
    assert done.stdout == f"ERA Cache, version {version}\n"


def test_help_is_quick():
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, BIN / "era-embed", "--help"], stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: what else the machine is doing does not count.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.4


# With real encoders


def launch(name, *arguments):
    return subprocess.run(
        [sys.executable, BIN / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        # One thread: the toy is small, and threads of parallel tests would wait for each other.
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.encoders
def test_real_encoders_from_texts_to_report(models, toy, tmp_path):
    large, small = models["large"], models["small"]
    store, adapter = tmp_path / "store", tmp_path / "adapter"
    arguments = [toy, "--query-model", large, "--doc-model", small, "--store", store]
    embedded = launch("era-embed", *arguments, "--json", "--device", "cpu")
    assert embedded.returncode == 0, embedded.stderr
    parts = json.loads(embedded.stdout)["parts"]
    assert [part["encoded"] for part in parts] == [30, 20, 20, 30]
    again = launch("era-embed", *arguments, "--json", "--device", "cpu")
    assert [part["encoded"] for part in json.loads(again.stdout)["parts"]] == [0, 0, 0, 0]
    fitted = launch("era-fit", store, "toy", "--out", adapter, "--labels", "40", "--device", "cpu")
    assert fitted.returncode == 0, fitted.stderr
    assert "queries by all-MiniLM-L6-v2, documents by wordllama-256" in fitted.stdout
    measured = launch("era-eval", store, adapter, "--json", "--device", "cpu")
    assert measured.returncode == 0, measured.stderr
    record = json.loads(measured.stdout)
    means = {c["name"]: c["measures"]["nDCG@10"]["mean"] for c in record["candidates"]}
    # 30 documents: any order at random has a mean of about 0.15.
    assert means["small"] > 0.4
    assert means["large"] > 0.4
    report = (adapter / "evaluation" / "report.html").read_text("utf-8")
    assert "all-MiniLM-L6-v2" in report
    assert "Traceback" not in embedded.stderr + again.stderr + fitted.stderr + measured.stderr


@pytest.mark.encoders
def test_embed_refuses_a_model_that_cannot_be_loaded(models, collection, tmp_path):
    write_lines(tmp_path / "model" / "config.json", ["{}"])
    options = ["--query-model", tmp_path / "model", "--doc-model", models["small"]]
    result = run(embed.main, collection, *options, "--store", tmp_path / "store", "--device", "cpu")
    assert_fails(result, tmp_path / "model", "cannot be loaded", "complete sentence-transformers")


@pytest.mark.encoders
def test_embed_refuses_an_encoder_without_tokenizer(models, collection, tmp_path):
    # Loading it succeeds: transformers makes up a tokenizer that knows no word.
    unwanted = shutil.ignore_patterns("tokenizer*", "vocab.txt", "special_tokens_map.json")
    bare = shutil.copytree(models["large"], tmp_path / "bare", ignore=unwanted)
    options = ["--query-model", bare, "--doc-model", models["small"]]
    result = run(embed.main, collection, *options, "--store", tmp_path / "store", "--device", "cpu")
    assert_fails(result, "no tokenizer for a query", bare)
