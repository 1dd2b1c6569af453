"""Packed strings are what a list of them is, wherever they lie."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_cache.collection import packed, text_rows
from era_cache.collection.beir import read_beir
from era_cache.collection.lines import Block, Lines, Problems, lines_of
from era_cache.collection.packed import PackedStrings, RowIndex, StringPacker, taken
from era_cache.errors import InputError, StoreError

TEXTS = st.lists(st.text(max_size=12).filter(lambda text: text.isprintable()), max_size=40)


@pytest.fixture(params=[1 << 20, 8], ids=["in memory", "in a file"], scope="module")
def held(request):
    """How many bytes stay in memory, and small blocks, so that all of them are walked through."""
    before = packed._IN_MEMORY, packed._BLOCK, packed._GAP
    packed._IN_MEMORY, packed._BLOCK, packed._GAP = request.param, 16, 8
    yield
    packed._IN_MEMORY, packed._BLOCK, packed._GAP = before


@given(texts=TEXTS, data=st.data())
@pytest.mark.usefixtures("held")
def test_packed_strings_are_the_list(texts, data):
    packer = StringPacker()
    cut = data.draw(st.integers(0, len(texts)))
    packer.extend(texts[:cut])
    packer.extend(texts[cut:])
    found = packer.finish()
    assert list(found) == texts == [found[row] for row in range(len(texts))]
    assert found == texts
    assert [part for block in found.blocks() for part in block] == [t.encode() for t in texts]
    assert found.packed().tobytes() == "".join(texts).encode()
    if texts:
        rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=30))
        assert found.take(np.array(rows, dtype=np.int64)) == [texts[row] for row in rows]
        assert taken(texts, np.array(rows, dtype=np.int64)) == [texts[row] for row in rows]
        assert found[1:4] == texts[1:4]
        assert found[-1] == texts[-1]
    with pytest.raises(IndexError):
        found[len(texts)]
    assert found != [*texts, "more"]


@given(names=TEXTS, asked=TEXTS, same=st.booleans())
def test_an_index_is_the_dictionary_even_where_all_hashes_are_equal(names, asked, same):
    with pytest.MonkeyPatch.context() as patch:
        if same:
            patch.setattr(packed, "hash", lambda _name: 7, raising=False)
        index = RowIndex(PackedStrings.of(names))
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        assert {name: index.get(name) for name in [*names, *asked]} == {
            name: first.get(name) for name in [*names, *asked]
        }
        assert all((name in index) == (name in first) for name in [*names, *asked])
        again = [row for row, name in enumerate(names) if first[name] != row]
        assert index.repeated().tolist() == again
        assert len(index) == len(names)
        assert list(index) == names


def test_a_full_disk_is_an_error_that_says_where(monkeypatch):
    monkeypatch.setattr(packed, "_IN_MEMORY", 8)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed.os, "write", full)
    with pytest.raises(StoreError, match=r"temporary file \(TMPDIR\).*disk is full"):
        PackedStrings.of(["more than", "eight bytes"])


UNUSUAL = [
    {"_id": 7, "text": "a number"},
    {"_id": "d2", "title": None, "text": "no title"},
    {"_id": "d3", "title": "Only a title", "text": None},
    {"id": "d4", "text": "another name for the id", "metadata": {"deep": [1, {"x": None}]}},
    {"_id": "d5", "title": " spaces ", "text": "{title} in braces"},
    {"_id": "d6", "text": "  "},
    {"_id": "ü", "text": "Ünïcode \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")},
]


@pytest.mark.parametrize("template", ["{title} {text}", "Title: {title}. {text}", "{text}"])
def test_blocks_and_single_lines_are_read_alike(tmp_path, template, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in UNUSUAL), encoding="utf-8")

    def read():
        found = text_rows.documents_of(path, lines_of(path), template, Problems(skip=False))
        return list(found.ids), list(found.texts), found.empty

    at_once = read()
    assert text_rows._sound_rows(next(lines_of(path).blocks())) is not None
    monkeypatch.setattr(text_rows, "_sound_rows", lambda _: None)
    assert read() == at_once
    assert at_once[0][0] == "7"
    assert at_once[2] == {"d6"}


WHOLE = (
    b'{"_id":"a","title":"T","text":"hello w\\u00e9"}\n{"_id":7,"text":"x\\ny"}',
    b'{"id":"b","text":"caf\xc3\xa9","more":[1,{"x":"y"}]}',
)
PIECES = (b'"', b"\\", b"u", b"d8", b"{", b"}", b":", b",", b"1", b".", b"e", b"null", b"\xff")


@pytest.mark.parametrize(
    "known",
    [
        b'{"_id":"a","text":"x","z":"\xff"}',
        b'{"_id":"a",\n"text":"a"} {"_id":"b","text":"b"}',
        b'{"_id":"a","text":"\\ud800"}',
        b'{"_id":1.0,"text":"a"}',
        b'{"_id":null,"id":"b","text":"a"}',
        b"",
    ],
)
def test_blocks_take_nothing_that_single_lines_refuse(known, monkeypatch):
    """Also of mangled lines: ids, texts or the same error, whichever way they are read."""
    path = Path("corpus.jsonl")
    rng = random.Random(len(known))

    def outcome(data, *, at_once):
        lines = lines_of(path)
        block = Block(path, 1, data.count(b"\n") + 1, data)
        with monkeypatch.context() as patch:
            patch.setattr(Lines, "blocks", lambda _: iter([block]))
            if not at_once:
                patch.setattr(text_rows, "_sound_rows", lambda _: None)
            try:
                found = text_rows.documents_of(path, lines, "{title} {text}", Problems(skip=False))
            except InputError as error:
                return str(error)
        return list(found.ids), list(found.texts), found.empty

    for _ in range(1 if known else 3000):
        mangled = bytearray(known or rng.choice(WHOLE))
        for _ in range(0 if known else rng.randint(1, 3)):
            at = rng.randrange(len(mangled))
            mangled[at : at + rng.randint(0, 1)] = rng.choice(PIECES)
        data = bytes(mangled)
        if all(line.strip() for line in data.split(b"\n")):
            assert outcome(data, at_once=True) == outcome(data, at_once=False), data


def test_a_duplicate_far_away_is_told_by_its_line_or_left_out(tmp_path):
    rows = [{"_id": f"d{n}", "text": f"text {n}"} for n in range(5000)]
    rows[4200] = {"_id": "d17", "text": "again"}
    lines = [json.dumps(row) for row in rows]
    lines[30:30] = ["", "   "]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"corpus.jsonl line 4203: id 'd17' occurs a second time"):
        read_beir(tmp_path)
    from era_cache.collection.assemble import ReaderSettings

    found = read_beir(tmp_path, ReaderSettings(skip_bad_rows=True))
    assert len(found.doc_ids) == 4999
    assert found.doc_texts[17] == "text 17"
    assert found.doc_ids[4200] == "d4201"
    assert found.dropped.bad_rows == 1
