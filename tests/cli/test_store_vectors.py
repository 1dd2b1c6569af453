"""The commands `era-store import`, `export` and `probe`, from the outside."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from imported_vectors import import_file
from tiny_model import build_tiny, open_model

from era_cache.cli import embed
from era_cache.cli.store_import import import_command
from era_cache.cli.store_vectors import export_command, probe_command
from era_cache.collection.beir import read_beir
from era_cache.store.exchange.matching import FileRows
from era_cache.store.exchange.row_ids import read_ids
from era_cache.store.store import Store
from era_cache.types import Role

DOCUMENTS = ["a b", "b c d", "d", "c c a", "a d d d"]
WEIGHTS = np.random.default_rng(0).standard_normal((5, 24)).astype("f4")


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def works(command, *arguments):
    result = run(command, *arguments)
    assert result.exit_code == 0, result.output
    return result


def fails(command, *arguments, code=1, words=()):
    result = run(command, *arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    for word in words:
        assert word in result.stderr
    return result


def write_collection(folder, documents):
    folder.mkdir()
    (folder / "qrels").mkdir()
    lines = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(documents)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = [{"_id": "q0", "text": "a"}, {"_id": "q1", "text": "b c"}]
    (folder / "queries.jsonl").write_text("\n".join(json.dumps(query) for query in queries))
    (folder / "qrels" / "test.tsv").write_text("q0\td0\t1\nq1\td1\t1\n")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a collection, a model, and its vectors in another order with their ids."""
    folder = tmp_path_factory.mktemp("place")
    write_collection(folder / "notes", DOCUMENTS)
    model = open_model(str(build_tiny(folder / "tiny", WEIGHTS)), device="cpu")
    order = [3, 1, 4, 0, 2]
    vectors = np.empty((5, 24), "f4")
    for rows, batch in model.encode([DOCUMENTS[row] for row in order], Role.DOCUMENT):
        vectors[rows] = batch
    np.save(folder / "v.npy", vectors)
    (folder / "ids.txt").write_text("\n".join(f"d{row}" for row in order))
    (folder / "acme.json").write_text('{"name": "acme", "model": "acme/embed"}')
    return folder


def imported(place, store, *more, model="tiny"):
    vectors = ["--vectors", place / "v.npy", "--ids", place / "ids.txt"]
    made_by = ["--model", place / model] if model else ["--encoder", place / "acme.json"]
    return [store, place / "notes", "--role", "document", *vectors, *made_by, *more]


def test_after_an_import_era_embed_has_no_document_to_encode(place, tmp_path):
    store = tmp_path / "store"
    result = works(import_command, *imported(place, store, "--json"))
    report = json.loads(result.stdout)
    assert (report["imported"], report["rows"], report["still_missing"]) == (5, 5, 0)
    assert "taken on your word" in result.stderr
    models = ["--query-model", place / "tiny", "--doc-model", place / "tiny", "--device", "cpu"]
    done = works(embed.main, place / "notes", "--store", store, *models, "--json")
    parts = {part["what"]: part for part in json.loads(done.stdout)["parts"]}
    assert (parts["documents"]["encoded"], parts["documents"]["cached"]) == (0, 5)
    assert parts["queries"]["encoded"] == 2


@pytest.mark.encoders
def test_after_an_import_the_demos_real_encoder_has_no_document_to_encode(
    models, toy, toy_texts, tmp_path
):
    vectors = np.random.default_rng(0).standard_normal((len(toy_texts.doc_ids), 256))
    np.save(tmp_path / "v.npy", vectors)
    store = tmp_path / "store"
    options = ["--role", "document", "--vectors", tmp_path / "v.npy", "--model", models["small"]]
    works(import_command, store, toy, *options, "--in-corpus-order")
    small = ["--query-model", models["small"], "--doc-model", models["small"], "--device", "cpu"]
    done = works(embed.main, toy, "--store", store, *small, "--json")
    part = next(p for p in json.loads(done.stdout)["parts"] if p["what"] == "documents")
    assert part["encoded"] == 0
    assert part["cached"] == part["rows"] > 0
    # The claim was untrue, and the probe says so.
    name = models["small"].name
    result = run(probe_command, store, name, toy, "--role", "document", "--model", models["small"])
    assert result.exit_code == 1
    assert "Drift" in result.stderr


def test_an_import_tells_what_it_did_and_what_to_do_next(place, tmp_path):
    more = write_collection(tmp_path / "notes", [*DOCUMENTS, "new c"])
    arguments = imported(place, tmp_path / "store", "--note", "old index", "--dtype", "float32")
    arguments[1] = more
    result = works(import_command, *arguments)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["imported", "5"] in lines
    assert ["texts", "still", "without", "1"] in lines
    assert "era-embed" in result.stdout
    again = works(import_command, *arguments)
    assert ["stored", "before", "5"] in [line.split() for line in again.stdout.splitlines()]


def test_the_probe_that_an_import_names_can_be_run(place, tmp_path):
    result = works(import_command, *imported(place, tmp_path / "store"))
    command = next(line for line in result.stderr.splitlines() if "era-store probe" in line)
    arguments = command.partition("era-store probe ")[2].split()
    assert "ok" in works(probe_command, *arguments, "--device", "cpu").stdout


def test_a_prompt_of_the_model_is_told(place, tmp_path):
    arguments = imported(place, tmp_path / "store", "--template", "passage: {text}")
    assert "'passage: {text}'" in works(import_command, *arguments).stderr
    spec = Store.open(tmp_path / "store").encoder("tiny").spec
    assert spec.template == "passage: {text}"


def test_settings_of_the_model_are_those_of_era_embed(place, tmp_path):
    settings = {"precision": "bfloat16", "max_seq_length": 7, "truncate_dim": 24}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    works(import_command, *imported(place, tmp_path / "store", *options))
    spec = open_model(place / "tiny", **settings).spec
    assert Store.open(tmp_path / "store").find_encoder(spec.fingerprint(Role.DOCUMENT))


def test_vectors_of_an_api_are_stored_under_their_facts(place, tmp_path):
    store = tmp_path / "store"
    result = works(import_command, *imported(place, store, model=None))
    assert "taken on your word" not in result.stderr
    assert Store.open(store).encoder("acme").spec.identity["facts"] == {"model": "acme/embed"}
    words = ["stated by an import"]
    fails(probe_command, store, "acme", place / "notes", "--model", place / "tiny", words=words)


def test_keys_take_the_place_of_a_collection(place, tmp_path):
    works(import_command, *imported(place, tmp_path / "a", "--dtype", "float32"))
    works(export_command, tmp_path / "a", "tiny", "--all", "--out", tmp_path / "all.npy")
    keys = tmp_path / "all.npy.ids.txt"
    options = ["--role", "document", "--vectors", tmp_path / "all.npy", "--keys", keys]
    works(import_command, tmp_path / "b", *options, "--encoder", place / "acme.json")
    keys = Store.open(tmp_path / "a").collection("notes").doc_keys
    one, two = (Store.open(tmp_path / name).encoders()[0].vectors(keys) for name in "ab")
    assert np.ptp(one - two) < 1e-2  # the second one as float16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--keys", "k"], ["COLLECTION"]),
        (["--encoder", "acme.json"], ["--model"]),
        (["--in-corpus-order"], ["--in-corpus-order", "one at most"]),
    ],
)
def test_contradictions_are_usage_errors(place, tmp_path, change, words):
    arguments = imported(place, tmp_path / "store", *change)
    fails(import_command, *arguments, code=2, words=words)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("option", ["template", "revision", "precision", "truncate-dim"])
def test_settings_of_a_model_do_not_go_with_a_stated_encoder(place, tmp_path, option):
    value = {"precision": "float32", "truncate-dim": 3}.get(option, "{text}")
    arguments = imported(place, tmp_path / "store", f"--{option}", value, model=None)
    fails(import_command, *arguments, code=2, words=["--encoder states everything"])


def test_without_ids_nothing_is_guessed(place, tmp_path):
    arguments = imported(place, tmp_path / "store")
    at = arguments.index("--ids")
    bare = arguments[:at] + arguments[at + 2 :]
    fails(import_command, *bare, code=2, words=["--ids", "--in-corpus-order"])
    assert not (tmp_path / "store").exists()
    works(import_command, *bare, "--in-corpus-order")  # as many rows as texts, and he says so
    one = [*bare[:1], write_collection(tmp_path / "notes", DOCUMENTS[1:]), *bare[2:]]
    fails(import_command, *one, "--in-corpus-order", words=["5 rows, but notes has 4"])


def test_ids_from_two_places_are_one_too_many(place, tmp_path):
    import h5py

    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["vectors"], file["ids"] = np.ones((5, 24), "f4"), [f"d{n}" for n in range(5)]
    arguments = imported(place, tmp_path / "store")
    arguments[arguments.index("--vectors") + 1] = tmp_path / "v.h5"
    fails(import_command, *arguments, code=2, words=["ids of its own"])


def test_the_models_own_dimension_is_compared_before_anything_is_stored(place, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((5, 7), "f4"))
    arguments = imported(place, tmp_path / "store")
    arguments[arguments.index("--vectors") + 1] = tmp_path / "v.npy"
    words = ["7 dimensions, but tiny gives 24", "--truncate-dim"]
    fails(import_command, *arguments, words=words)
    assert not (tmp_path / "store").exists()
    works(import_command, *arguments, "--truncate-dim", "7", "--dtype", "int8")


def test_an_export_is_in_the_collections_order(place, tmp_path):
    store = tmp_path / "store"
    works(import_command, *imported(place, store, "--dtype", "float32"))
    out = tmp_path / "out.npy"
    result = works(export_command, store, "tiny", "notes", "--out", out)
    assert "5 x 24 float32 to out.npy, its ids to out.npy.ids.txt." in result.stdout
    assert read_ids(tmp_path / "out.npy.ids.txt") == [f"d{n}" for n in range(5)]
    np.testing.assert_array_equal(np.load(out), np.load(place / "v.npy")[[3, 1, 4, 0, 2]])
    fails(export_command, store, "tiny", "notes", "--out", out, words=["is there already"])


def test_an_export_as_json_and_of_a_part(place, tmp_path):
    store = tmp_path / "store"
    works(import_command, *imported(place, store))
    more = read_beir(write_collection(tmp_path / "more", [*DOCUMENTS, "new c"]))
    Store.open(store).add_collection(more)
    out = ["--out", tmp_path / "new" / "out.npy", "--ids-out", tmp_path / "i.json"]
    fails(export_command, store, "tiny", "more", *out, words=["1 of the 6", "--skip-missing"])
    result = works(export_command, store, "tiny", "more", *out, "--skip-missing", "--json")
    report = json.loads(result.stdout)
    assert (report["rows"], report["skipped"], report["ids"]) == (5, 1, "i.json")
    assert json.loads((tmp_path / "i.json").read_text()) == [f"d{n}" for n in range(5)]


def test_an_export_names_what_it_cannot_tell_apart(place, tmp_path):
    store = tmp_path / "store"
    out = ["--out", tmp_path / "o.npy"]
    works(import_command, *imported(place, store))
    queries = imported(place, store)
    np.save(tmp_path / "q.npy", np.ones((2, 24), "f4"))
    queries[queries.index("document")] = "query"
    queries[queries.index("--vectors") + 1] = tmp_path / "q.npy"
    at = queries.index("--ids")
    works(import_command, *queries[:at], *queries[at + 2 :], "--in-corpus-order")
    fails(export_command, store, "tiny", "notes", *out, words=["tiny (document,", "tiny (query,"])
    fails(export_command, store, "other", "notes", *out, words=["tiny (document,"])
    fails(export_command, store, "tiny", *out, code=2, words=["--all"])
    fails(export_command, store, "tiny", "notes", "--all", *out, code=2, words=["--all"])
    works(export_command, store, "tiny", "notes", "--role", "query", *out)
    assert np.load(tmp_path / "o.npy").shape == (2, 24)


def test_a_probe_passes_on_honest_vectors_and_names_the_import(place, tmp_path):
    store = tmp_path / "store"
    works(import_command, *imported(place, store))
    arguments = [store, "tiny", place / "notes", "--model", place / "tiny", "--device", "cpu"]
    result = works(probe_command, *arguments)
    assert "imported from v.npy" in result.stdout
    assert "5 of 5" in result.stdout
    report = json.loads(works(probe_command, *arguments, "--sample", "3", "--json").stdout)
    assert (report["verdict"], report["rows"], report["stored"]) == ("ok", 3, 5)
    assert report["segments"][0]["provenance"]["stated"] is True


def test_a_probe_of_drifted_vectors_fails_and_still_reports(place, tmp_path):
    store = Store.create(tmp_path / "store")
    works(import_command, *imported(place, tmp_path / "right"))
    spec = open_model(place / "tiny").spec
    keys = Store.open(tmp_path / "right").collection("notes").doc_keys
    noise = np.random.default_rng(1).standard_normal((5, 24)).astype("f4")
    np.save(
        tmp_path / "w.npy", Store.open(tmp_path / "right").encoder("tiny").vectors(keys) + noise
    )
    from era_cache.store.exchange.arrays import open_vectors

    rows = FileRows(keys, np.ones(5, bool), None)
    import_file(store, open_vectors(tmp_path / "w.npy"), rows, spec=spec)
    options = ["--model", place / "tiny", "--device", "cpu"]
    arguments = [store.path, "tiny", place / "notes", *options]
    result = run(probe_command, *arguments)
    assert result.exit_code == 1
    assert "drift" in result.stdout
    assert result.stderr.startswith("Error: Drift: 'd")
    result = run(probe_command, *arguments, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "drift"
    assert report["cosine_min"] < 0.999
    assert report["runtime"]["device"] == "cpu"
    works(probe_command, *arguments, "--tolerance", "0")


@pytest.mark.parametrize("command", [import_command, export_command, probe_command])
def test_help_has_an_example(command):
    assert f"era-store {command.name} " in works(command, "--help").stdout
