"""era-search in the terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from beir_folder import beir_of
from click.testing import CliRunner, Result
from hash_encoder import HashEncoder
from lookup_cases import NASTY, Case, build, fitted, nasty_texts
from planted import planted_texts
from tiny_model import open_model

from era_cache.cli import search
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.report.terminal import display_width
from era_cache.serve.engine import MOST_DEPTH
from era_cache.serve.http import server
from era_cache.serve.http.app import App

BIN = Path(__file__).parents[2] / "bin" / "era-search"


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return build(tmp_path_factory.mktemp("search"), nasty_texts())


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory) -> Path:
    return beir_of(tmp_path_factory.mktemp("search"), case.texts)


def _run(case: Case, *arguments: object, width: int = 100, **given: object) -> Result:
    texts = [str(a) for a in (case.store.path, case.folder, "--device", "cpu", *arguments)]
    return CliRunner().invoke(search.main, texts, env={"COLUMNS": str(width)}, **given)


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def _refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in " ".join(result.stderr.split())


@pytest.mark.parametrize("width", [60, 100, 160])
@pytest.mark.parametrize("with_texts", [True, False])
def test_a_stored_query_is_shown_and_no_line_is_too_wide_or_obeyed(
    case, folder, width, with_texts
) -> None:
    options = ("--texts", folder) if with_texts else ()
    seen = ""
    for query_id in ("q003", "q004", "q005", "q006", "q007", "q008", "q009"):
        result = _done(_run(case, "--id", query_id, *options, width=width))
        assert f"Query {query_id} (" in result.stdout
        assert all(name in result.stdout for name in ("small", "aligned", "era-dual (chosen)"))
        assert max(display_width(line) for line in result.stdout.splitlines()) <= width
        assert result.stdout.replace("\n", "").isprintable()
        seen += result.stdout
    # Each of these queries finds its own document, whose name is nasty.
    assert "<scrip" in seen
    assert "🙂" in seen
    assert "\ufffd" in seen
    assert case.texts.query_texts[5] in seen or not with_texts or width == 60


def test_json_holds_ids_and_texts_as_they_are_in_ascii(case, folder) -> None:
    result = _done(_run(case, "--id", "q005", "--texts", folder, "--json", "-k", "120"))
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    record = json.loads(result.stdout)
    assert record["depth"] == 120
    for column in record["candidates"]:
        hits = {hit["document"]: hit["text"] for hit in column["hits"]}
        assert set(hits) == set(case.texts.doc_ids)
        # The reader takes away what surrounds a document's text, and only that.
        for doc_id, text in zip(case.texts.doc_ids, case.texts.doc_texts, strict=True):
            assert hits[doc_id] == (text if text == text.strip() else None)
    assert {NASTY["d005"], NASTY["d006"]} <= set(hits)


def test_other_candidates_and_depths_can_be_asked_for(case) -> None:
    result = _run(case, "--id", "q001", "--candidates", "era, small+", "-k", "3", "--json")
    record = json.loads(_done(result).stdout)
    assert [column["name"] for column in record["candidates"]] == ["era", "small+"]
    assert [len(column["hits"]) for column in record["candidates"]] == [3, 3]
    assert record["baseline"] is None


def test_the_words_of_a_stored_query_need_no_model(case) -> None:
    text = case.texts.query_texts[20]
    result = _done(_run(case, *text.split(), "--json"))
    assert json.loads(result.stdout)["query"]["id"] == "q020"


def test_texts_of_another_version_are_counted_and_not_shown(case, folder, tmp_path) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    lines = (changed / "corpus.jsonl").read_text("utf-8").splitlines()
    lines[20] = json.dumps({**json.loads(lines[20]), "text": "quite another text"})
    (changed / "corpus.jsonl").write_text("\n".join([*lines[:30], *lines[31:]]) + "\n", "utf-8")
    (changed / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq001\td001\t1\n")
    result = _done(_run(case, "--id", "q020", "--texts", changed, "-k", "120", "--json"))
    assert "1 of 120 documents have another text there than was embedded" in result.stderr
    assert "1 of 120 documents are not there" in result.stderr
    texts = {h["document"]: h["text"] for h in json.loads(result.stdout)["candidates"][0]["hits"]}
    assert texts["d020"] is None
    assert texts["d030"] is None
    assert texts["d021"] == case.texts.doc_texts[21]
    # Nothing fits where documents are made of titles and texts in another way.
    result = _done(_run(case, "--id", "q020", "--texts", folder, "--document-text", "Text: {text}"))
    assert "120 of 120 documents have another text" in result.stderr
    assert "Give --document-text as for era-embed" in result.stderr


# The prompt


def test_lines_are_answered_until_the_end(case) -> None:
    text = case.texts.query_texts[2]
    lines = f"{text}\n:id q004\n:random\n:help\n:nope\n:id nope\nnew words\n:quit\n:id q005\n"
    result = _done(_run(case, "--seed", 3, "-k", 2, input=lines))
    shown = [line.split(" (")[0] for line in result.stdout.splitlines() if "Query q" in line]
    assert shown[:2] == ["Query q002", "Query q004"]
    assert len(shown) == 3
    assert ":random" in result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert ["':nope' is no command" in errors[0], "no query 'nope'" in errors[1]] == [True, True]
    assert "give --query-model (hash-24)" in errors[2]
    assert len(errors) == 3
    again = _done(_run(case, "--seed", 3, input=":random\n"))
    assert shown[2] in again.stdout


def test_an_empty_line_ends_it(case) -> None:
    assert _done(_run(case, input="\n:id q004\n")).stdout == ""


def _start_at_terminal(case: Case) -> tuple[int, int]:
    """Start the command at a real terminal: its process and the terminal's other side."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS="100", OMP_NUM_THREADS="1", TERM="dumb")
        command = [sys.executable, str(BIN), str(case.store.path), str(case.folder)]
        os.execv(sys.executable, [*command, "--device", "cpu"])
    return pid, terminal


def _type_at(pid: int, terminal: int, keys: list[bytes]) -> tuple[str, int]:
    """Press keys, each after a prompt; gives what was shown and the exit code.

    The last key is pressed again while nothing happens: one that comes just before the prompt's own
    terminal mode is lost, as it is for people.
    """
    shown, prompts, last = b"", 0, keys[-1]
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 5)[0]:
            if not keys:
                os.write(terminal, last)
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
        if shown.count(b"query> ") > prompts and keys:
            prompts = shown.count(b"query> ")
            os.write(terminal, keys.pop(0))
    os.close(terminal)
    return shown.decode("utf-8"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_at_a_terminal_it_prompts_and_ctrl_d_and_ctrl_c_end_it_quietly(case) -> None:
    ends = (b"\x04", b"\x03")
    running = [_start_at_terminal(case) for _ in ends]
    for (pid, terminal), last in zip(running, ends, strict=True):
        shown, code = _type_at(pid, terminal, [b":id q007\n", last])
        assert code == 0, shown
        assert "Query q007 (" in shown
        assert "Traceback" not in shown
        assert shown.count("query> ") == 2
        assert "\x1b[1m" in shown  # the relevant ones stand out


# Refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["w1", "--id", "q001"], "not both"),
        (["--json"], "--json needs a QUERY or --id"),
        (["--web", "--id", "q001"], "--web takes its queries on the page"),
        (["--web", "w1"], "--web takes its queries on the page"),
        (["--id", "q001", "-k", "0"], "0 is not in the range"),
        (["--web", "--port", "65536"], "65536 is not in the range"),
    ],
)
def test_wrong_use_is_said(case, arguments, words) -> None:
    _refused(_run(case, *arguments), 2, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--id", "nope"], "no query 'nope' among its 60; the first is 'q000'"),
        (["--id", ""], "no query ''"),
        (["new words"], "--query-model (hash-24) and --doc-model (hash-16)"),
        (["w1", "--query-model", "./none"], "is of kind 'hash'"),
        (["--id", "q001", "--candidates", "best"], "'best' was asked for; there are small,"),
        (["--id", "q001", "--collection", "nope"], "no collection 'nope'"),
        (["--id", "q001", "--texts", "./nope"], "no such folder"),
        (["--id", "q001", "--instruction", "do"], "neither prompt has a place"),
        (["--web", "--host", "0.0.0.0"], "Add --token auto"),
        (["--web", "--token", "short"], "at least 16 letters"),
    ],
)
def test_what_cannot_be_done_is_one_message(case, arguments, words) -> None:
    _refused(_run(case, *arguments), 1, "Error: ", words)


def test_no_store_and_no_adapter_are_said(case, tmp_path) -> None:
    for store, adapter, words in (
        (tmp_path, case.folder, "not a store"),
        (case.store.path, tmp_path, "not an adapter folder"),
    ):
        result = CliRunner().invoke(search.main, [str(store), str(adapter), "--id", "q1"])
        _refused(result, 1, words)


def test_a_port_that_is_taken_is_said(case) -> None:
    running = server.Server(App({}, case.lookup(), ["small"]), port=0)
    try:
        _refused(_run(case, "--web", "--port", running.port), 1, "is taken", "--port")
    finally:
        running.close()


def test_an_address_of_another_machine_is_said(case) -> None:
    far = ["--web", "--host", "192.0.2.7", "--token", "auto"]
    _refused(_run(case, *far), 1, "192.0.2.7 is no address of this machine")


def test_of_several_collections_one_is_named(tmp_path) -> None:
    case = build(tmp_path, planted_texts())
    again = planted_texts()._replace(name="again")
    again = again._replace(query_texts=[f"{text} again" for text in again.query_texts])
    for name in ("again", "unseen"):
        embed_collection(
            case.store,
            again._replace(name=name, domain=name),
            large=HashEncoder(24, "large"),
            small=HashEncoder(16, "small"),
            config=EmbedConfig(align_documents=60),
        )
    both = fitted(case._replace(folder=tmp_path / "both"), ["planted", "again"], "auto")
    _refused(_run(both, "--id", "q001"), 1, "planted, again", "--collection")
    for name in ("again", "unseen"):
        result = _done(_run(both, "--id", "q001", "--collection", name, "--json"))
        assert json.loads(result.stdout)["collection"]["name"] == name


# The command itself


def test_help_is_there_at_once_and_defaults_are_those_of_the_code() -> None:
    start = time.monotonic()
    done = subprocess.run([sys.executable, BIN, "--help"], capture_output=True, check=True)
    assert b"era-search [OPTIONS] STORE ADAPTER" in done.stdout
    # 0.1 s on a quiet machine; torch alone would take ten times as long.
    assert time.monotonic() - start < 2
    code = "import sys, era_cache.cli.search; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {b"torch", b"numpy", b"h5py", b"starlette"} & set(loaded.stdout.split())
    defaults = {parameter.name: parameter for parameter in search.main.params}
    assert defaults["port"].default == server.DEFAULT_PORT
    assert search.MOST_DEPTH == MOST_DEPTH


def test_ctrl_c_ends_the_page_s_server_quietly(case) -> None:
    command = [sys.executable, BIN, case.store.path, case.folder, "--web", "--port", "0"]
    with subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        address = running.stdout.readline()
        assert address.startswith("Open http://127.0.0.1:")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.encoders
def test_real_encoders_answer_what_was_never_stored(models, toy, toy_texts, tmp_path) -> None:
    large, small = (
        open_model(models[side], **given)
        for side, given in (
            ("large", {"query_template": "Instruct: {instruction}\nQuery: {text}"}),
            ("small", {"truncate_dim": 128}),
        )
    )
    case = build(tmp_path, toy_texts, large=large, small=small)
    texts = case.texts
    # The prompt and the dimensions are those recorded; nobody says them again.
    given = ["--query-model", models["large"], "--doc-model", models["small"], "--texts", toy]
    asked = _run(
        case,
        "The tap keeps dripping at night",
        "--instruction",
        texts.instructions[0],
        *given,
        "--json",
    )
    record = json.loads(_done(asked).stdout)
    assert record["query"]["id"] is None
    assert record["milliseconds"]["encode"] > 0
    for column in record["candidates"]:
        assert "d01" in [hit["document"] for hit in column["hits"][:3]]  # "Stopping a tap …"
        assert all(hit["text"] for hit in column["hits"])
    # Word for word a stored query: its stored vectors, hence the same list as by its id.
    word = ["--instruction", texts.instructions[4], *given, "--json"]
    typed = json.loads(_done(_run(case, texts.query_texts[4], *word)).stdout)
    stored = json.loads(_done(_run(case, "--id", texts.query_ids[4], *given, "--json")).stdout)
    assert typed["candidates"] == stored["candidates"]
    assert typed["query"] == stored["query"]
    swapped = ["--query-model", models["small"], "--doc-model", models["large"]]
    _refused(_run(case, "tap", *swapped), 1, "exchange the two")
