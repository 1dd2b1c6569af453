"""A collection that lives on after an adapter was fitted: documents and judgements come and go."""

from __future__ import annotations

import json
from pathlib import Path

from command_case import MODELS, done, embedded_in, evaluated, fitted, run
from hash_encoder import HashEncoder
from planted import planted_texts

from era_cache.cli import embed, evaluate, search, store
from era_cache.store.store import Store


def _grow(case: Path, *, documents: int = 3, queries: int = 0) -> None:
    """Documents ``new0``…, and queries that find the last documents by words of their own."""
    folder = case / "beir"
    corpus = folder / "corpus.jsonl"
    rows = [{"_id": f"new{i}", "text": f"quite{i} new{i} words{i} here"} for i in range(documents)]
    corpus.write_text(corpus.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "queries.jsonl"
    asked = [{"_id": f"late{i}", "text": f"where is new{i % 3} of late{i}"} for i in range(queries)]
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in asked))
    (qrels,) = (folder / "qrels").iterdir()
    more = "".join(f"late{i} new{i % 3} 1\n" for i in range(queries))
    qrels.write_text(qrels.read_text() + more)


def test_a_grown_corpus_is_searched_whole_and_told(case) -> None:
    embedded_in(case)
    fitted(case)
    _grow(case)
    assert sum(part["encoded"] for part in embedded_in(case)["parts"]) == 6  # by both models
    words = [case / "store", case / "a", "--id", "q000", "-k", 123, "--json"]
    result = done(run(search.main, *words))
    assert "beir: 123 documents, fitted on 120 (3 documents newer)." in result.stderr
    for column in json.loads(result.stdout)["candidates"]:
        found = {hit["document"] for hit in column["hits"]}
        assert {"new0", "new1", "new2"} <= found


def test_later_judgements_measure_an_old_adapter(case) -> None:
    embedded_in(case)
    fitted(case)
    before = evaluated(case)["split"]["test"]
    _grow(case, queries=8)
    embedded_in(case)
    result = done(run(evaluate.main, case / "store", case / "a", "--device", "cpu"))
    assert "8 queries newer, 8 labels newer); measured on queries that it has not seen" in (
        result.stdout
    )
    assert evaluated(case)["split"]["test"] == before + 8
    # Beside what was measured before, not in its place.
    version = Store.open(case / "store").collection("beir").version
    place = case / "a" / "evaluation"
    assert (place / "results.json").is_file()
    assert (place / f"beir-{version}" / "results.json").is_file()
    report = json.loads((place / "evaluation.json").read_text())
    assert report["split"]["test"] == before
    # Against a new fit, on what neither has seen: the two shuffles differ.
    fitted(case, out="b")
    found = evaluated(case, "--with", case / "a", adapter="b")
    assert 0 < found["split"]["test"] < before
    (note,) = [line for line in found["notes"] if "test queries left out" in line]
    assert "which another adapter measured here has seen" in note


def test_a_deleted_document_takes_its_judgements_along_where_asked(case) -> None:
    embedded_in(case)
    fitted(case)
    corpus = case / "beir" / "corpus.jsonl"
    rows = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join(rows[3:]))
    words = [case / "beir", *MODELS, "--store", case / "store"]
    refused = run(embed.main, *words)
    assert refused.exit_code == 1
    assert "document 'd000' is not in corpus.jsonl" in refused.stderr
    assert "--skip-lost-judgements" in refused.stderr
    result = done(run(embed.main, *words, "--skip-lost-judgements"))
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Left out of beir: ")
    assert "bad rows skipped: test.tsv: document … is not in corpus.jsonl (" in last
    assert "Nothing to encode" in result.stdout
    shown = run(search.main, case / "store", case / "a", "--id", "q010").stderr
    assert "beir: 117 documents, fitted on 120 (3 documents gone, " in shown


def _told(case: Path) -> str:
    words = [case / "store", "--adapter", case / "a"]
    return done(run(store.main, "info", *words)).stdout.splitlines()[-1]


def test_info_says_whether_an_adapter_still_fits(case, monkeypatch) -> None:
    embedded_in(case)
    fitted(case)
    assert "valid: nothing changed since it was fitted." in _told(case)
    _grow(case)
    embedded_in(case)
    assert "123 documents, fitted on 120 (3 documents newer): still valid, new doc" in _told(case)
    _grow(case, documents=0, queries=3)
    embedded_in(case)
    assert "3 queries newer, 3 labels newer): still valid; era-eval measures it on" in _told(case)
    pair = HashEncoder(24, seed="larger", template="Find: {text}"), HashEncoder(16, seed="small")
    monkeypatch.setattr(embed, "_encoders", lambda *_: pair)
    embedded_in(case)
    assert "another pair since, which this adapter does not serve: queries by hash-24" in _told(
        case
    )
    assert "prompt 'Find: {text}'" in _told(case)
    qrels = next((case / "beir" / "qrels").iterdir())
    qrels.write_text("".join(qrels.read_text().splitlines(keepends=True)[8:]))
    embedded_in(case)
    assert "labels withdrawn): still valid; fit again: it learned from labels that" in _told(case)


def test_a_collection_and_an_encoder_are_renamed_and_removed(case) -> None:
    embedded_in(case)
    fitted(case)
    before = evaluated(case, "--out", case / "before")
    result = done(run(store.main, "rename", case / "store", "beir", "tools"))
    assert result.stdout.startswith("Now called tools-")
    done(run(store.main, "rename", case / "store", "hash-24", "ours"))
    after = evaluated(case, "--out", case / "after")
    assert after["split"] == before["split"]
    assert [one["measures"] for one in after["candidates"]] == [
        one["measures"] for one in before["candidates"]
    ]
    # Embedded under its new name, nothing is encoded again.
    assert sum(part["encoded"] for part in embedded_in(case, "--name", "tools")["parts"]) == 0
    told = done(run(store.main, "rm", case / "store", "tools", "ours", "--dry-run")).stdout
    assert "Would remove collection tools-" in told
    assert "Would remove encoder ours (query, fingerprint " in told
    refused = run(store.main, "rm", case / "store", "tools", "nobody")
    assert refused.exit_code == 1
    assert "no collection and no encoder 'nobody'" in refused.stderr
    assert "tools" in done(run(store.main, "ls", case / "store")).stdout  # all of them, or none
    done(run(store.main, "rm", case / "store", "tools", "ours"))
    done(run(store.main, "gc", case / "store", "--unreferenced", "--grace", "0"))
    assert not list((case / "store").rglob("segments/*.h5"))
    assert sum(part["encoded"] for part in embedded_in(case)["parts"]) > 0


def test_a_newer_version_that_is_embedded_in_part_says_what_to_search_instead(case) -> None:
    embedded_in(case)
    fitted(case)
    version = Store.open(case / "store").collection("beir").version
    texts = planted_texts()
    grown = texts._replace(
        name="beir", doc_ids=[*texts.doc_ids, "new"], doc_texts=[*texts.doc_texts, "more words"]
    )
    Store.open(case / "store").add_collection(grown)  # as a writer does before it encodes
    words = [case / "store", case / "a", "--id", "q000"]
    result = run(search.main, *words)
    assert result.exit_code == 1
    assert "Or search an older version: --collection beir-VERSION." in result.stderr
    done(run(search.main, *words, "--collection", f"beir-{version}"))
