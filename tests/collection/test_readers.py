"""Readers of all forms but BEIR folders: what they take over, what they leave out and say."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.mair_snapshot import write_mair, write_task
from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.mair_tasks import DOMAIN_OF, DOMAINS
from era_cache.collection.readers import READERS, find_reader
from era_cache.collection.records import TextCollection
from era_cache.errors import InputError

PLAIN = ReaderSettings()
SKIP = ReaderSettings(skip_bad_rows=True)


def read(given: object, *options: str, reader: str | None = None, settings=PLAIN) -> TextCollection:
    return find_reader(str(given), reader, options).read(settings)


def triples(texts: TextCollection, split: str = "test") -> list[tuple[str, str, int]]:
    part = texts.splits[split]
    rows = zip(part.query_rows, part.doc_rows, part.relevance, strict=True)
    return sorted((texts.query_ids[q], texts.doc_ids[d], int(grade)) for q, d, grade in rows)


def lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    tables = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


# Which reader


def test_the_reader_is_found_by_name_or_look(tmp_path, toy) -> None:
    lines(tmp_path / "hub" / "corpus" / "a.jsonl", [])
    parquet(tmp_path / "flat" / "corpus.parquet", [{"id": "1", "text": "x"}])
    for path, reader in (
        (toy, "beir"),
        (tmp_path / "hub", "hub"),
        (tmp_path / "flat", "hub"),
        (tmp_path / "none", "beir"),
        ("mair:SciFact", "mair"),
        ("mteb:SciFact", "mteb"),
        ("irds:beir/scifact", "irds"),
        ("nobody:knows", "beir"),
    ):
        assert find_reader(str(path), None).reader == reader
    assert find_reader("mair:SciFact", None).what == "SciFact"
    assert find_reader("mair:SciFact", "mair").what == "SciFact"
    (tmp_path / "mair:x").mkdir()
    assert find_reader(str(tmp_path / "mair:x"), None).reader == "beir"
    for suffix, reader in ((".zip", "zip"), (".json", "qa"), (".csv", "beir")):
        (tmp_path / f"file{suffix}").write_text("")
        assert find_reader(str(tmp_path / f"file{suffix}"), None).reader == reader


def test_options_that_no_reader_has_are_refused(toy) -> None:
    with pytest.raises(InputError, match="expected NAME=VALUE"):
        find_reader("x", None, ["folder"])
    with pytest.raises(InputError, match=r"the reader 'beir' has no such option; it has none"):
        read(toy, "folder=x")
    with pytest.raises(InputError, match="the reader 'mair' has no such option; it has folder, sp"):
        find_reader("mair:*", None, ["column=x"]).each()
    with pytest.raises(InputError, match="it has instruction, negative, positive, query"):
        read(toy, "column=x", reader="pairs")


def test_every_reader_of_ours_can_be_imported() -> None:
    assert all(callable(READERS.load(name)) for name in READERS.own)


# BEIR in a zip file


def test_a_zip_file_of_a_collection(tmp_path, toy, toy_texts) -> None:
    path = tmp_path / "scifact.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(toy.rglob("*")):
            if file.is_file():
                archive.write(file, Path("inner") / file.relative_to(toy))
        archive.writestr("__MACOSX/inner/._corpus.jsonl", "x")
        archive.writestr("../../outside.tsv", "x")
    texts = read(path)
    assert texts._replace(name="toy", splits={}) == toy_texts._replace(splits={})
    assert triples(texts) == triples(toy_texts)
    assert texts.name == "scifact"
    assert not (tmp_path.parent / "outside.tsv").exists()


def test_zip_files_that_hold_no_collection(tmp_path, toy) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(InputError, match="cannot be unpacked"):
        read(bad)
    empty, two, bomb = (tmp_path / f"{name}.zip" for name in ("empty", "two", "bomb"))
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(InputError, match=r"no folders with corpus\.jsonl"):
        read(empty)
    with zipfile.ZipFile(two, "w") as archive:
        for name in ("a", "b"):
            archive.write(toy / "corpus.jsonl", f"{name}/corpus.jsonl")
    with pytest.raises(InputError, match="2 folders with"):
        read(two)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("corpus.jsonl", b"\0" * (80 << 20))
    with pytest.raises(InputError, match="more than 200 times"):
        read(bomb)
    with pytest.raises(InputError, match="cannot be read or unpacked: No such file"):
        read(tmp_path / "none.zip", reader="zip")


# Tables of the hub

CORPUS = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "title": "", "text": "two"}]
QUERIES = [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}]
QRELS = [
    {"query-id": "q1", "corpus-id": "d1", "score": 1.0},
    {"query-id": "q2", "corpus-id": "d2", "score": 2},
]


def test_the_hubs_layouts_all_read_the_same(tmp_path) -> None:
    part = "-00000-of-00001.parquet"
    as_id = [{"id": one["_id"], **{k: v for k, v in one.items() if k != "_id"}} for one in CORPUS]
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    parquet(one / "corpus" / f"corpus{part}", CORPUS)
    parquet(one / "queries" / f"queries{part}", QUERIES)
    parquet(one / "default" / f"test{part}", QRELS[:1])
    parquet(one / "default" / f"train{part}", QRELS[1:])
    lines(two / "corpus.jsonl", as_id)
    lines(two / "queries.jsonl", [*QUERIES[:1], {**QUERIES[1], "instruction": "Go."}])
    lines(two / "data" / "test.jsonl", QRELS)
    parquet(three / "corpus.parquet", as_id)
    (three / "queries.csv").write_text("id,text\nq1,first\nq2,second\n")
    parquet(three / "qrels.parquet", QRELS)
    lines(three / "instruction.jsonl", [{"query-id": "q2", "instruction": "Go."}])
    (three / "README.md").write_text("---\n")
    found = read(one, reader="hub")
    assert (found.doc_texts, found.query_texts) == (["T one", "two"], ["first", "second"])
    assert triples(found) == [("q1", "d1", 1)]
    assert triples(found, "train") == [("q2", "d2", 2)]
    assert triples(read(one, "splits=train"), "train") == [("q2", "d2", 2)]
    for folder in (two, three):
        found = read(folder, reader="hub")
        assert triples(found) == [("q1", "d1", 1), ("q2", "d2", 2)]
        assert found.instructions == ["", "Go."]
        assert found.doc_texts == ["T one", "two"]


def test_subsets_and_what_is_missing_of_the_hubs_layout(tmp_path) -> None:
    for language in ("de", "fr"):
        lines(tmp_path / f"{language}-corpus" / "test.jsonl", CORPUS)
        lines(tmp_path / f"{language}-queries" / "test.jsonl", QUERIES)
        lines(tmp_path / f"{language}-qrels" / "test.jsonl", QRELS)
    with pytest.raises(InputError, match=r"no table of documents; .* name a subset"):
        read(tmp_path, reader="hub")
    assert triples(read(tmp_path, "subset=de", reader="hub"))
    with pytest.raises(InputError, match="of the subset 'it'"):
        read(tmp_path, "subset=it", reader="hub")
    with pytest.raises(InputError, match="splits 'dev'; there are test"):
        read(tmp_path, "subset=de", "splits=dev", reader="hub")
    with pytest.raises(InputError, match="no name of a data set"):
        read("a/b/c", reader="hub")
    lines(tmp_path / "de-qrels" / "test.jsonl", [*QRELS, {"query-id": "q1", "corpus-id": "x"}])
    with pytest.raises(InputError, match=r"test\.jsonl line 3: no fields say which grade"):
        read(tmp_path, "subset=de", reader="hub")
    assert triples(read(tmp_path, "subset=de", reader="hub", settings=SKIP))


# Questions as LlamaIndex writes them


def test_a_set_of_questions(tmp_path) -> None:
    path = tmp_path / "qa.json"
    whole = {
        "queries": {"q1": "first", "q2": "second"},
        "corpus": {"n1": "one", "n2": "two"},
        "relevant_docs": {"q1": ["n1", "n2"], "q2": ["n2"]},
        "mode": "text",
    }
    path.write_text(json.dumps(whole))
    texts = read(path)
    assert triples(texts) == [("q1", "n1", 1), ("q1", "n2", 1), ("q2", "n2", 1)]
    assert texts.name == "qa"
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    assert triples(read(path)) == triples(texts)
    for change, message in (
        ({"relevant_docs": {"q1": ["n9"]}}, "document 'n9' is not in"),
        ({"relevant_docs": {"q1": "n1"}}, "expected a list of ids"),
        ({"corpus": ["one"]}, "expected one JSON object with queries, corpus"),
        ({"corpus": {"n1": 7}}, "line 1: field 'text' must be text"),
    ):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(InputError, match=message):
            read(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"qa\.json"):
        read(path)


# Pairs and triples


def test_pairs_and_triples_of_every_form(tmp_path) -> None:
    rows = [
        {"anchor": "what", "positive": "this", "negative": "that"},
        {"anchor": "who", "positive": "that", "negative_2": "other"},
        {"anchor": "what", "positive": ["more", "this"]},
    ]
    wanted = [("q1", "d1", 1), ("q1", "d2", 0), ("q1", "d4", 1), ("q2", "d2", 1), ("q2", "d3", 0)]
    texts = read(lines(tmp_path / "pairs.jsonl", rows), reader="pairs")
    assert (texts.doc_texts, texts.query_texts) == (
        ["this", "that", "other", "more"],
        ["what", "who"],
    )
    assert triples(texts, "train") == wanted
    (tmp_path / "pairs.csv").write_text("query,answer\nwhat,this\nwho,that\n")
    texts = read(tmp_path / "pairs.csv", reader="pairs")
    assert triples(texts, "train") == [("q1", "d1", 1), ("q2", "d2", 1)]
    parquet(tmp_path / "f" / "train-00000-of-00001.parquet", [{"q": "a", "a": "b"}])
    parquet(tmp_path / "f" / "test-00000-of-00001.parquet", [{"q": "c", "a": "d"}])
    texts = read(tmp_path / "f", "query=q", "positive=a", reader="pairs")
    assert set(texts.splits) == {"train", "test"}
    assert texts.doc_texts == ["d", "b"]
    said = [{"query": "a", "answer": "b", "instruction": f"Do {n}."} for n in (1, 2)]
    texts = read(lines(tmp_path / "said.jsonl", said), reader="pairs")
    assert texts.instructions == ["Do 1.", "Do 2."]


def test_pairs_that_are_none(tmp_path) -> None:
    path = lines(
        tmp_path / "p.jsonl", [{"query": "a", "answer": "b"}, {"query": "c", "answer": " "}]
    )
    with pytest.raises(InputError, match="line 2: no text in the column 'answer'"):
        read(path, reader="pairs")
    assert read(path, reader="pairs", settings=SKIP).dropped.bad_rows == 1
    with pytest.raises(InputError, match=r"no column 'x'; .*--read query=COLUMN"):
        read(path, "query=x", reader="pairs")
    with pytest.raises(InputError, match="no file of pairs"):
        read(tmp_path / "none", reader="pairs")


# MAIR


def test_the_domains_are_those_of_the_official_code() -> None:
    sizes = {"web": 54, "academic": 16, "code": 18, "finance": 8, "legal": 11, "medical": 19}
    assert {name: len(tasks) for name, tasks in DOMAINS.items()} == sizes
    assert len(DOMAIN_OF) == 126


def names(given: str, folder: Path, *options: str) -> list[str]:
    return [one.what for one in find_reader(given, None, [f"folder={folder}", *options]).each()]


def test_tasks_domains_and_all(tmp_path) -> None:
    write_mair(tmp_path, ["SciFact", "TMDB", "Apple", "Unheard"])
    assert names("mair:SciFact", tmp_path) == ["SciFact"]
    assert names("mair:Code", tmp_path) == ["TMDB"]
    assert names("mair:*", tmp_path) == ["SciFact", "TMDB", "Apple", "Unheard"]
    with pytest.raises(InputError, match=r"no task and no domain 'Sci' there\. Tasks: SciFact"):
        names("mair:Sci", tmp_path)
    with pytest.raises(InputError, match="expected split-wise or merged"):
        names("mair:*", tmp_path, "splits=x")
    texts = read("mair:SciFact", f"folder={tmp_path}")
    assert (texts.name, texts.domain) == ("SciFact", "academic")
    assert len(set(texts.instructions)) == 3
    assert texts.query_ids[:2] == ["0", "1"]
    assert triples(texts)[0] == ("0", "0", 1)
    with pytest.raises(InputError, match="no folder MAIR-Queries"):
        names("mair:*", tmp_path / "MAIR-Docs")


def test_dirt_is_mended_as_other_readers_do_and_counted(tmp_path) -> None:
    labels = [{"id": "a", "score": 1}, {"id": "a", "score": 2.0}, {"id": "gone", "score": 1}]
    queries = [
        {"qid": 7, "instruction": "Go.", "query": "one", "labels": labels},
        {"qid": 7, "instruction": "Run.", "query": "two", "labels": {"id": ["b"], "score": [1]}},
        {"qid": 8, "instruction": None, "query": "three", "labels": []},
    ]
    docs = [{"id": "a", "doc": "A"}, {"id": "b", "doc": "B"}, {"id": "a", "doc": "again"}]
    write_task(tmp_path, "X", queries, docs)
    texts = read("mair:X", f"folder={tmp_path}")
    assert texts.doc_texts == ["A", "B"]
    assert triples(texts) == [("7", "a", 2), ("7_1", "b", 1)]
    assert texts.instructions == ["Go.", "Run."]
    said = " ".join(texts.dropped.messages())
    for part in (
        "query with an id that was there, called ID_NUMBER (1)",
        "document with an id that was there (1)",
        "label of a document that is not there (1)",
        "1 queries without a judgement",
        "1 repeated judgements",
    ):
        assert part in said
    queries[0]["labels"] = [{"id": "a", "score": 0.5}]
    write_task(tmp_path, "X", queries, docs)
    with pytest.raises(InputError, match=r"queries\.jsonl line 1: score '0.5' is not a whole"):
        read("mair:X", f"folder={tmp_path}")


def test_splits_have_documents_of_their_own_or_are_merged_as_published(tmp_path) -> None:
    for split, word in (("CQADupStack_Android", "app"), ("CQADupStack_Tex", "font")):
        queries = [
            {
                "qid": "1",
                "instruction": "Go.",
                "query": f"{word}?",
                "labels": [{"id": "1", "score": 1}],
            },
            {
                "qid": word,
                "instruction": "Go.",
                "query": word,
                "labels": [{"id": word, "score": 1}],
            },
        ]
        docs = [{"id": "1", "doc": f"{word} one"}, {"id": word, "doc": f"{word} two"}]
        write_task(tmp_path, "CQADupStack", queries, docs, split)
    both = names("mair:CQADupStack", tmp_path)
    assert both == [
        "CQADupStack/CQADupStack_Android_queries",
        "CQADupStack/CQADupStack_Tex_queries",
    ]
    texts = read(f"mair:{both[1]}", f"folder={tmp_path}")
    assert texts.name == "CQADupStack-Tex"
    assert texts.doc_texts == ["font one", "font two"]
    merged = ["splits=merged", f"folder={tmp_path}"]
    assert names("mair:CQADupStack", tmp_path, "splits=merged") == ["CQADupStack"]
    texts = read("mair:CQADupStack", *merged)
    assert texts.doc_texts == ["font one", "app two", "font two"]  # later ids overwrite
    assert texts.query_texts == ["font?", "app", "font"]
    assert len(triples(texts)) == 3
    with pytest.raises(InputError, match=r"2 splits with documents of their own"):
        read("mair:CQADupStack", f"folder={tmp_path}")
    (tmp_path / "MAIR-Docs" / "CQADupStack" / "CQADupStack_Tex_docs.jsonl").unlink()
    with pytest.raises(InputError, match="no documents 'CQADupStack_Tex_docs'"):
        names("mair:CQADupStack", tmp_path)


def test_parquet_as_the_hub_converts_it(tmp_path) -> None:
    queries = [{"qid": "1", "instruction": "I", "query": "x", "labels": [{"id": "a", "score": 1}]}]
    parquet(tmp_path / "MAIR-Queries" / "X" / "queries" / "0000.parquet", queries)
    parquet(tmp_path / "MAIR-Docs" / "X" / "docs-00000-of-00001.parquet", [{"id": "a", "doc": "A"}])
    assert triples(read("mair:X", f"folder={tmp_path}")) == [("1", "a", 1)]


# The hub


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching needs, over a folder of data sets."""

    root: Path
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.removeprefix("/api").strip("/").split("/")
        folder = self.root / parts[1] / parts[2]
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        about = [
            {
                "type": "file",
                "oid": "0" * 40,
                "size": one.stat().st_size,
                "path": name,
                "rfilename": name,
            }
            for one in files
            for name in [one.relative_to(folder).as_posix()]
        ]
        if not files:
            return self.answer(404, b"{}")
        if "/tree/" in path:
            return self.answer(200, json.dumps(about).encode())
        if path.startswith("/api"):
            info = {
                "id": "/".join(parts[1:3]),
                "sha": "a" * 40,
                "siblings": about,
                "private": False,
            }
            return self.answer(200, json.dumps(info).encode())
        self.asked.append("/".join(parts[5:]))
        return self.answer(200, (folder / "/".join(parts[5:])).read_bytes())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("x-repo-commit", "a" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    _Hub.root, _Hub.asked = tmp_path / "hub", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield tmp_path / "hub", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def from_hub(hub, given: str) -> subprocess.CompletedProcess[str]:
    folder, address = hub
    code = (
        "import sys; from era_cache.collection.readers import find_reader;"
        "from era_cache.collection.assemble import ReaderSettings;"
        "every = find_reader(sys.argv[1], None).each();"
        "[print(t.name, t.domain, len(t.doc_ids), len(t.query_ids)) for one in every"
        " for t in [one.read(ReaderSettings())]]"
    )
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(folder.parent / "cache")}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, given], env=env, capture_output=True, text=True, check=False
    )


def test_the_hub_is_asked_for_what_is_wanted_and_once(hub) -> None:
    root, _ = hub
    write_mair(root / "MAIR-Bench", ["SciFact", "SciDocs", "Apple"])
    done = from_hub(hub, "mair:academic")
    assert done.stdout.splitlines() == ["SciDocs academic 60 40", "SciFact academic 60 40"], (
        done.stderr
    )
    assert not [name for name in _Hub.asked if "Apple" in name]
    lines(root / "owner" / "set" / "corpus.jsonl", CORPUS)
    lines(root / "owner" / "set" / "queries.jsonl", QUERIES)
    lines(root / "owner" / "set" / "qrels" / "test.jsonl", QRELS)
    assert from_hub(hub, "hub:owner/set").stdout == "set  2 2\n"
    fetched = list(_Hub.asked)
    assert from_hub(hub, "hub:owner/set").stdout == "set  2 2\n"
    assert _Hub.asked == fetched
    lost = from_hub(hub, "hub:owner/none")
    assert "InputError: owner/none: cannot be fetched from the hub: " in lost.stderr


# Packages of others


@pytest.mark.filterwarnings("ignore")
def test_a_task_of_mteb_keeps_instructions_apart() -> None:
    pytest.importorskip("mteb", reason="mteb is not installed: pip install 'era-cache[mteb]'")
    from mteb.mocks.mock_tasks.retrieval import MockInstructionRetrieval, MockRetrievalTask

    from era_cache.collection.mteb_tasks import read_task

    texts = read_task(MockRetrievalTask(), PLAIN)
    assert len(texts.doc_ids) == 2
    assert triples(texts)
    said = read_task(MockInstructionRetrieval(), PLAIN)
    assert all(said.instructions)
    assert not any(said.instructions[row] in text for row, text in enumerate(said.query_texts))
    with pytest.raises(InputError, match=r"which split\? There are"):
        read_task(MockRetrievalTask(), PLAIN, split="none")
    with pytest.raises(InputError, match="MTEB knows no such task"):
        read("mteb:NobodyMadeThis")


@pytest.mark.parametrize(("reader", "package"), [("mteb", "mteb"), ("irds", "ir_datasets")])
def test_a_missing_package_is_named_with_its_extra(reader, package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install 'era-cache\[{reader}\]'"):
        read(f"{reader}:any")


@pytest.fixture
def registered(tmp_path):
    """Data sets of ir_datasets made of local files: TREC topics, qrels, and documents."""
    ir_datasets = pytest.importorskip("ir_datasets", reason="pip install 'era-cache[irds]'")
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.formats import TrecQrels, TrecQueries, TsvDocs
    from ir_datasets.util import LocalDownload

    (tmp_path / "docs.tsv").write_text("d1\tfirst document\nd2\tsecond document\n")
    topics = "".join(
        f"<top>\n<num> Number: {n}\n<title> {word}\n<desc> Description:\nabout {word}\n"
        f"<narr> Narrative:\nmore\n</top>\n"
        for n, word in ((1, "first"), (2, "second"))
    )
    (tmp_path / "topics").write_text(topics)
    (tmp_path / "qrels").write_text("1 0 d1 1\n2 0 d2 2\n")
    docs = TsvDocs(LocalDownload(tmp_path / "docs.tsv"))
    asked = TrecQueries(LocalDownload(tmp_path / "topics"))
    grades = {0: "no", 1: "yes", 2: "very"}
    judged = TrecQrels(LocalDownload(tmp_path / "qrels"), grades)
    made = {"made": Dataset(docs), "made/trec": Dataset(docs, asked, judged)}
    for name, one in made.items():
        ir_datasets.registry.register(name, one)
    yield tmp_path
    for name in made:
        ir_datasets.registry._registered.pop(name)


def test_data_sets_of_ir_datasets_with_trec_topics(registered) -> None:
    texts = read("irds:made/trec")
    assert texts.doc_texts == ["first document", "second document"]
    assert texts.query_texts == ["first", "second"]
    assert triples(texts, "trec") == [("1", "d1", 1), ("2", "d2", 2)]
    whole = read("irds:made")
    assert triples(whole, "trec") == triples(texts, "trec")
    assert read("irds:made", "field=description").query_texts == ["about first", "about second"]
    with pytest.raises(InputError, match="no field 'x'"):
        read("irds:made", "field=x")
    with pytest.raises(InputError, match="knows no such id"):
        read("irds:never/heard")
    (registered / "topics").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read("irds:made/trec")
