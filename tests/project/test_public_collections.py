"""The recipe of public collections: small files in each form, from a server that fails."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import public_collections
import pytest
from click.testing import CliRunner
from public_collections import SOURCES, File, Source, build_collection
from public_formats import of_beir, of_cosqa, of_cranfield, of_med, of_sealtools

from era_cache.collection.beir import read_beir
from era_cache.errors import InputError


def tar_of(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", ".").replace("_", "."))
            data = text.encode("latin-1")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("elsewhere")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def beir_zip() -> bytes:
    out = io.BytesIO()
    corpus = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "text": "two"}]
    queries = [{"_id": "q1", "text": "ask"}, {"_id": "q2", "text": "nobody judged"}]
    with zipfile.ZipFile(out, "w") as archive:
        for name, rows in (("corpus", corpus), ("queries", queries)):
            archive.writestr(f"small/{name}.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
        archive.writestr("small/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\n")
    return out.getvalue()


CODE = {"def f(): pass": 1, "def g(): pass": 0}
ASKED = [{"idx": "c1", "doc": "how to f", "code": "def f(): pass"}]
CARD = {
    "api_name": "getFilm",
    "api_description": "Film facts",
    "field": "Art/Film",
    "parameters": {"title": {"type": "str", "description": "its name"}},
    "responses": {"year": {"type": "int", "description": "when"}},
}
CALLED = {"id": "t-0", "query": "About  Alien. ", "calling": [{"api": "getFilm"}]}
CRAN = ".I 1\n.T\na wing\n.A\nb\n.W\na wing\nin a slip\nstream .\n.I 2\n.T\n.W\n"
LINES = "\n".join([json.dumps(CALLED)]).encode()
FORMS = {
    "beir": (of_beir, [beir_zip()], [("q1", "d1", 2)], {"q1": "ask"}),
    "cosqa": (
        of_cosqa,
        [json.dumps(CODE).encode(), json.dumps(ASKED).encode(), b"[]"],
        [("c1", "code-1", 1)],
        {"c1": "how to f"},
    ),
    "sealtools": (
        of_sealtools,
        [json.dumps(CARD).encode(), LINES, b"", b""],
        [("t-0", "seal-0", 1)],
        {"t-0": "About Alien."},
    ),
    "cranfield": (
        of_cranfield,
        [
            tar_of(
                cran_all_1400=CRAN, cran_qry=".I 001\n.W\nwhat wings\n", cranqrel="1 1 2\n1 2 3\n"
            )
        ],
        [("q1", "1", 1)],
        {"q1": "what wings"},
    ),
    "med": (
        of_med,
        [
            tar_of(
                MED_ALL=".I 7\n.W\nlens  of\n eyes\n",
                MED_QRY=".I 1\n.W\n eyes\n",
                MED_REL="1 0 7 1\n",
            )
        ],
        [("q1", "7", 1)],
        {"q1": "eyes"},
    ),
}


class _Files(BaseHTTPRequestHandler):
    content: ClassVar[dict[str, bytes]] = {}
    failing: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        fault = self.failing.pop(0) if self.failing else ""
        data = self.content.get(self.path)
        self.send_response(404 if data is None else 500 if fault == "500" else 200)
        data = data or b""
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(public_collections.time, "sleep", lambda _seconds: None)
    _Files.content, _Files.failing, _Files.asked = {}, [], []
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


def served(server: str, form: str) -> Source:
    convert, contents, *_ = FORMS[form]
    files = []
    for number, data in enumerate(contents):
        _Files.content[f"/{form}/{number}"] = data
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        files.append(File(f"{server}/{form}/{number}", digest))
    return Source(tuple(files), convert, "web", "Find it.", "free")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_becomes_a_collection(server, tmp_path, form) -> None:
    _, _, judged, queries = FORMS[form]
    folder = build_collection(form, served(server, form), tmp_path)
    texts = read_beir(folder)
    part = texts.splits["test"]
    rows = zip(part.query_rows, part.doc_rows, part.relevance, strict=True)
    assert [(texts.query_ids[q], texts.doc_ids[d], int(g)) for q, d, g in rows] == judged
    assert dict(zip(texts.query_ids, texts.query_texts, strict=True)) == queries
    assert texts.domain == "web"
    assert set(texts.instructions) == {"Find it."}
    assert json.loads((folder / "meta.json").read_text())["licence"] == "free"


def test_texts_are_those_of_the_source() -> None:
    cran = of_cranfield(FORMS["cranfield"][1])
    assert cran.documents == {"1": ("a wing", "in a slip stream .")}
    seal = of_sealtools(FORMS["sealtools"][1])
    assert seal.documents["seal-0"] == (
        "getFilm",
        "Film facts\nfield: Art/Film\nparameters: title (str): its name\nresponses: year: when",
    )


def test_a_server_that_fails_is_asked_again_and_what_came_is_kept(server, tmp_path) -> None:
    source = served(server, "med")
    _Files.failing = ["500", "cut"]
    build_collection("med", source, tmp_path)
    assert len(_Files.asked) == 3
    build_collection("again", source, tmp_path)
    build_collection("med", source, tmp_path)
    assert len(_Files.asked) == 3
    for path in (tmp_path / ".sources").iterdir():  # what is damaged is fetched anew
        path.write_bytes(b"other")
    build_collection("third", source, tmp_path)
    assert len(_Files.asked) == 4


def test_other_content_and_lost_files_are_refused_and_leave_nothing(server, tmp_path) -> None:
    source = served(server, "med")
    _Files.content["/med/0"] = tar_of(MED_ALL=".I 9\n.W\nevil\n", MED_QRY="", MED_REL="")
    with pytest.raises(InputError, match="not the file that is expected"):
        build_collection("med", source, tmp_path)
    del _Files.content["/med/0"]
    with pytest.raises(InputError, match="cannot be fetched: HTTP 404"):
        build_collection("med", source, tmp_path)
    assert list(tmp_path.glob("**/*.jsonl")) == []
    gone = File("http://127.0.0.1:9/x", "sha256:0")
    with pytest.raises(InputError, match="cannot be fetched"):
        build_collection("med", source._replace(files=(gone,)), tmp_path)


def test_the_command_names_what_there_is(tmp_path) -> None:
    assert len(SOURCES) >= 6
    for source in SOURCES.values():
        assert all(file.url.startswith("https://") for file in source.files)
        assert all(
            len(file.digest) in (len("md5:") + 32, len("sha256:") + 64) for file in source.files
        )
    result = CliRunner().invoke(public_collections.main, ["nothing", str(tmp_path)])
    assert result.exit_code == 2
    assert "there are scifact, nfcorpus" in result.output
