"""A package from outside brings a reader and a kind of encoder, by its entry points alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.readers import READERS
from era_cache.encode.encoder import KINDS, EncoderSettings, open_encoder
from era_cache.errors import EncoderError, InputError

ROOT = Path(__file__).parents[2]
SOURCE = """
import json
import zlib
import numpy as np
from era_cache.collection.records import Dropped, TextCollection
from era_cache.encode.encoder import EncoderSettings
from era_cache.store.encoder_record import EncoderSpec
from era_cache.types import Qrels, Role


def read_notebook(path, settings):
    book = json.loads(path.read_text())
    documents, queries = list(book["notes"]), list(book["questions"])
    rows = [(queries.index(q), documents.index(d), 1) for q, d in book["answers"]]
    return TextCollection(
        name=settings.name or path.stem,
        domain="",
        ignore_identical_ids=False,
        doc_ids=documents,
        doc_texts=list(book["notes"].values()),
        query_ids=queries,
        query_texts=list(book["questions"].values()),
        instructions=[""] * len(queries),
        splits={"test": Qrels(*np.array(rows, dtype=np.int64).T)},
        dropped=Dropped(),
    )


class Words:
    def __init__(self, model: str, settings: EncoderSettings) -> None:
        self.width = int(model)
        identity = {"kind": "words", "width": self.width, "truncate_dim": settings.truncate_dim}
        templates = {
            Role.QUERY: settings.query_template or "{text}",
            Role.DOCUMENT: settings.document_template or "{text}",
        }
        self.spec = EncoderSpec(f"words-{model}", identity, templates, {})

    def encode(self, texts, role):
        for row, text in enumerate(texts):
            vector = np.zeros((1, self.width), np.float32)
            for word in text.lower().split():
                vector[0, zlib.crc32(word.strip(".,?'").encode()) % self.width] += 1
            yield [row], vector

    def provenance(self):
        return {"device": "cpu"}


class Liar(Words):
    def __init__(self, model, settings):
        super().__init__(model, settings)
        self.spec = self.spec._replace(identity={"kind": "other"})
"""
ENTRIES = """
[era_cache.readers]
notebook = acme_era:read_notebook
absent = acme_era:no_such_thing
beir = acme_era:read_notebook

[era_cache.encoders]
words = acme_era:Words
liar = acme_era:Liar
"""


@pytest.fixture
def site(tmp_path):
    """A folder of installed packages, with one in it."""
    folder = tmp_path / "site"
    about = folder / "acme_era-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "acme_era.py").write_text(SOURCE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-era\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    return folder


@pytest.fixture
def installed(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("acme_era", None)


def test_commands_use_what_another_package_brings(site, toy_texts, tmp_path):
    book = tmp_path / "household.json"
    (qrels,) = toy_texts.splits.values()
    answers = [
        (toy_texts.query_ids[q], toy_texts.doc_ids[d])
        for q, d, grade in zip(*qrels, strict=True)
        if grade >= 1
    ]
    texts = {
        "notes": dict(zip(toy_texts.doc_ids, toy_texts.doc_texts, strict=True)),
        "questions": dict(zip(toy_texts.query_ids, toy_texts.query_texts, strict=True)),
        "answers": answers,
    }
    book.write_text(json.dumps(texts))
    store, adapter = tmp_path / "store", tmp_path / "adapter"
    models = ["--query-model", "words:512", "--doc-model", "words:64"]
    path = os.pathsep.join([str(site), str(ROOT)])

    def run(name, *arguments):
        done = subprocess.run(
            [sys.executable, ROOT / "bin" / name, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    read = ["--reader", "notebook"]
    prompt = ["--large-query-template", "find {text}"]
    report = json.loads(run("era-embed", book, "--store", store, *models, *read, *prompt, "--json"))
    assert [(part["encoder"], part["encoded"]) for part in report["parts"]] == [
        ("words-64", 30),
        ("words-64", 20),
        ("words-512", 20),
        ("words-512", 30),
    ]
    run("era-fit", store, "household", "--out", adapter, "--labels", "40", "--device", "cpu")
    # Both are opened again as the store recorded them, prompt included.
    found = run("era-search", store, adapter, "drip", *models, "--texts", book, *read, "--json")
    found = json.loads(found)
    assert found["milliseconds"]["encode"] is not None
    assert all(hit["text"] for hit in found["candidates"][0]["hits"])
    probed = run(
        "era-store", "probe", store, "words-512", book, "--role", "query", "--model", "words:512",
        *read, "--json",
    )  # fmt: skip
    assert json.loads(probed)["equal_after_rounding"] == 20


def test_what_is_ours_stays_ours_and_is_never_looked_up(installed, toy, toy_texts):
    assert set(READERS.names()) - set(READERS.own) == {"absent", "notebook"}
    assert set(KINDS.names()) - set(KINDS.own) == {"liar", "words"}
    assert READERS.load("beir")(toy, ReaderSettings()).doc_ids == toy_texts.doc_ids


def test_a_broken_package_is_named(installed):
    with pytest.raises(InputError, match=r"reader 'absent' \(acme_era:no_such_thing\) cannot be"):
        READERS.load("absent")
    with pytest.raises(EncoderError, match="its kind is 'other', but it is registered as 'liar'"):
        open_encoder("liar:4", EncoderSettings())


def test_an_unknown_reader_is_named_with_those_there_are():
    with pytest.raises(InputError, match="No reader is named 'notebook'; there are beir"):
        READERS.load("notebook")


@pytest.mark.parametrize(
    "model", ["C:\\models\\e5", "words:8", ":x", "./words:8", "/a:b/c", "a:b:c"]
)
def test_a_colon_alone_makes_no_kind(model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderError, match="no such folder"):
        open_encoder(model, EncoderSettings())


def test_a_folder_with_a_colon_in_its_name_is_a_model(installed, tmp_path, monkeypatch):
    (tmp_path / "words:8").mkdir()
    (tmp_path / "words:8" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert open_encoder("words:8", EncoderSettings()).spec.identity["kind"] == "words"
    folder = open_encoder("./words:8", EncoderSettings())
    assert folder.spec.identity["kind"] == "sentence-transformers"
