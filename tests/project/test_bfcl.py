from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from pathlib import Path

import bfcl_source
import pytest
from bfcl import build_bfcl

from era_cache.collection.beir import read_beir
from era_cache.errors import InputError, StoreError

CITY = {"type": "dict", "properties": {"city": {"type": "string", "description": "The city."}}}
PLACE = {"type": "dict", "properties": {"place": {"type": "string", "description": "Where."}}}
FILES = ("corpus.jsonl", "queries.jsonl", "qrels/all.tsv", "meta.json")


def function(name, description, parameters=CITY):
    return {"name": name, "description": description, "parameters": parameters}


def entry(entry_id, text, *functions):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {"id": entry_id, "question": [messages], "function": list(functions)}


def answer(entry_id, *names):
    return {"id": entry_id, "ground_truth": [{name: {"city": ["Oslo"]}} for name in names]}


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_kind(source, kind, entries, answers=None):
    write_lines(source / f"BFCL_v4_{kind}.json", entries)
    if answers is not None:
        write_lines(source / "possible_answer" / f"BFCL_v4_{kind}.json", answers)


@pytest.fixture
def source(tmp_path):
    """Three weather cards (two of them twins), one of another description, two others."""
    folder = tmp_path / "data"
    weather = function("weather", "Get the weather.")
    twin = function("weather", "get  the\nWEATHER.", PLACE)
    other = function("weather", "Forecast rain.")
    entries = [
        entry("a_0", "Weather in Oslo?", weather, function("clock", "Tell the time.")),
        entry("a_1", "Weather in Rome?", twin),
        entry("a_2", "Rain and time?", other, function("clock", "Tell the time.")),
        entry("a_3", "Weather in Oslo?", other),
        entry("a_4", "  ", weather),
        entry("a_5", "No answer", weather),
    ]
    answers = [
        answer("a_0", "weather", "weather"),
        answer("a_1", "weather"),
        answer("a_2", "weather", "clock"),
        answer("a_3", "weather"),
        answer("a_4", "weather"),
        answer("a_5"),
    ]
    write_kind(folder, "a", entries, answers)
    write_kind(folder, "b_irrelevance", [entry("b_0", "Hm", function("email.send", "Send mail."))])
    write_kind(folder, "memory", [{"id": "m_0", "question": [], "scenario": "x"}], [])
    (folder / "BFCL_v4_pretty.json").write_text('\n{\n "function": 1\n}\n')
    (folder / "BFCL_v4_list.json").write_text('[{"function": []}]\n')
    (folder / "BFCL_v4_empty.json").write_text("\n\n")
    return folder


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_grades(folder):
    texts = {record["_id"]: record["text"] for record in read_lines(folder / "corpus.jsonl")}
    grades = {}
    for line in (folder / "qrels/all.tsv").read_text().splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        grades.setdefault(query_id, {})[texts[doc_id]] = int(grade)
    return grades


def snapshot(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_exact_cards_get_grade_two_and_twins_grade_one(source, tmp_path):
    build_bfcl(tmp_path / "out", source=source)
    grades = read_grades(tmp_path / "out")
    weather = "Get the weather.\ncity (string): The city."
    twin = "get  the\nWEATHER.\nplace (string): Where."
    rain = "Forecast rain.\ncity (string): The city."
    clock = "Tell the time.\ncity (string): The city."
    assert grades == {
        # a_3 asks the same as a_0, and its answer is the rain card.
        "a_0": {weather: 2, twin: 1, rain: 2},
        "a_1": {weather: 1, twin: 2},
        "a_2": {rain: 2, clock: 2},
    }


def test_counts_say_what_was_read_merged_and_left_out(source, tmp_path):
    counts = build_bfcl(tmp_path / "out", source=source)
    assert counts._asdict() == {
        "files": 2,
        "skipped_files": 4,
        "functions_read": 9,
        "requests_read": 4,
        "merged_requests": 1,
        "unanswered_requests": 2,
        "empty_requests": 1,
        "replaced_characters": 0,
        "documents": 5,
        "queries": 3,
        "judgements": 7,
        "twin_judgements": 2,
    }


def test_functions_without_ground_truth_are_documents_but_not_judged(source, tmp_path):
    build_bfcl(tmp_path / "out", source=source)
    mail = [d for d in read_lines(tmp_path / "out/corpus.jsonl") if d["title"] == "email.send"]
    assert [d["text"] for d in mail] == ["Send mail.\ncity (string): The city."]
    assert mail[0]["_id"] not in (tmp_path / "out/qrels/all.tsv").read_text()


def test_queries_are_user_messages_of_all_turns_under_the_first_id(tmp_path):
    said = [("user", "One"), ("assistant", "Two"), ("user", "Three")]
    turn = [{"role": role, "content": content} for role, content in said]
    first = {**entry("x_7", "", function("f", "F.")), "question": [turn, turn[:1]]}
    again = {**first, "id": "x_2"}
    answers = [answer("x_2", "f"), answer("x_7", "f")]
    write_kind(tmp_path / "data", "x", [first, again], answers)
    build_bfcl(tmp_path / "out", source=tmp_path / "data")
    queries = read_lines(tmp_path / "out/queries.jsonl")
    assert queries == [{"_id": "x_7", "text": "One\nThree\nOne"}]


def test_ids_are_the_name_and_eight_digits_that_ignore_key_order(tmp_path):
    reordered = function("f", "F.", dict(reversed(CITY.items())))
    entries = [entry("x_0", "Q", function("f", "F.")), entry("x_1", "R", reordered)]
    write_kind(tmp_path / "data", "x", entries, [answer("x_0", "f"), answer("x_1", "f")])
    assert build_bfcl(tmp_path / "out", source=tmp_path / "data").documents == 1
    (document,) = read_lines(tmp_path / "out/corpus.jsonl")
    name, _, tail = document["_id"].partition("#")
    assert name == "f"
    assert len(bytes.fromhex(tail)) == 4


def test_documents_describe_enums_and_one_level_of_nested_parameters(tmp_path):
    deep = {"type": "dict", "properties": {"too_deep": {"type": "string"}}}
    options = {"size": {"type": "string", "enum": ["S", 4, None]}, "deep": deep}
    parameters = {
        "properties": {
            "unit": {"type": "string", "description": " The unit. ", "enum": ["C", "F"]},
            "options": {"type": "dict", "properties": options},
            "stops": {"type": "array", "items": {"properties": {"at": {"description": "Town"}}}},
            "code": {"type": "string", "description": "A code.", "enum": ["x" * 60, "y" * 60]},
        }
    }
    entries = [entry("x_0", "Q", function("f", None, parameters))]
    write_kind(tmp_path / "data", "x", entries, [answer("x_0", "f")])
    build_bfcl(tmp_path / "out", source=tmp_path / "data")
    (document,) = read_lines(tmp_path / "out/corpus.jsonl")
    assert document["text"].split("\n") == [
        "unit (string): The unit. one of: C, F",
        "options (dict)",
        "options.size (string): one of: S, 4, null",
        "options.deep (dict)",
        "stops (array)",
        "stops.at: Town",
        "code (string): A code.",
    ]


def test_text_that_is_not_unicode_is_replaced_and_counted(tmp_path):
    write_kind(
        tmp_path / "data",
        "x",
        [entry("x_0", "lone \ud800 and pair \U0001f600", function("f", "RAW é \\ud800."))],
        [answer("x_0", "f")],
    )
    path = tmp_path / "data/BFCL_v4_x.json"
    path.write_bytes(path.read_bytes().replace(b"RAW", b"\xff"))
    assert build_bfcl(tmp_path / "out", source=tmp_path / "data").replaced_characters == 2
    (query,) = read_lines(tmp_path / "out/queries.jsonl")
    assert query["text"] == "lone \ufffd and pair \U0001f600"
    raw = (tmp_path / "out/corpus.jsonl").read_bytes().decode("utf-8", "strict")
    assert "\ufffd é \\\\ud800." in raw


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x_1", "question"', "not a line of JSON"),
        ('{"id": ' + "9" * 5000 + "}", "not a line of JSON"),
        ("[" * 100_000, "not a line of JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"id": 7}', "'id' must be a string, found int"),
        ('{"id": "x\\t1"}', "'id' must be a name without white space"),
        ('{"id": "x_0"}', "id 'x_0' was used before"),
        ('{"id": "x_1", "question": []}', "'function' must be a list, found NoneType"),
        ('{"id": "x_1", "function": ["f"]}', "a function must be an object, found str"),
        ('{"id": "x_1", "function": [{"name": "a b"}]}', "a name without white space"),
        ('{"id": "x_1", "function": [{"name": "f", "description": 1}]}', "'description' must be"),
        ('{"id": "x_1", "function": [{"name": "f", "parameters": []}]}', "'parameters' must be"),
        (
            '{"id": "x_1", "function": [{"name": "f", "parameters": {"properties": {"p": 1}}}]}',
            "function 'f', parameter 'p' must be an object, found int",
        ),
        ('{"id": "x_1", "function": [], "question": ["q"]}', "a turn of 'question' must be a list"),
        (
            '{"id": "x_1", "function": [], "question": [[{"role": "user", "content": null}]]}',
            "'content' of a message must be a string, found NoneType",
        ),
    ],
)
def test_a_broken_request_line_is_named(tmp_path, line, message):
    write_kind(tmp_path / "data", "x", [entry("x_0", "Q", function("f", "F."))])
    path = tmp_path / "data/BFCL_v4_x.json"
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(InputError) as caught:
        build_bfcl(tmp_path / "out", source=tmp_path / "data")
    assert f"{path} line 3" in str(caught.value)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "x_0"}, "'ground_truth' must be a list"),
        ({"id": "x_0", "ground_truth": ["f(1)"]}, "a call must be an object, found str"),
        (answer("x_0", "g"), "the answer calls 'g', which"),
        (answer("x_9", "f"), "the answer is for 'x_9', which is not in the requests"),
    ],
)
def test_a_broken_answer_line_is_named(tmp_path, record, message):
    write_kind(tmp_path / "data", "x", [entry("x_0", "Q", function("f", "F."))], [record])
    with pytest.raises(InputError) as caught:
        build_bfcl(tmp_path / "out", source=tmp_path / "data")
    assert f"{tmp_path / 'data/possible_answer/BFCL_v4_x.json'} line 1" in str(caught.value)
    assert message in str(caught.value)


def test_two_answers_for_one_request_are_refused(tmp_path):
    answers = [answer("x_0", "f"), answer("x_0", "f")]
    write_kind(tmp_path / "data", "x", [entry("x_0", "Q", function("f", "F."))], answers)
    with pytest.raises(InputError, match=r"line 2: a second answer for 'x_0'"):
        build_bfcl(tmp_path / "out", source=tmp_path / "data")


def test_a_folder_without_requests_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no BFCL_v4_"):
        build_bfcl(tmp_path / "out", source=tmp_path / "nowhere")


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bfcl_source, "PACKAGE", "no-such-package-of-era-cache")
    with pytest.raises(InputError, match="pip install --no-deps no-such-package-of-era-cache"):
        build_bfcl(tmp_path / "out")


@pytest.fixture
def large_source(tmp_path):
    """Thirty requests with a function of their own, and thirty functions without a request."""
    folder = tmp_path / "data"
    entries = [entry(f"x_{i}", f"Do {i}", function(f"f{i}", f"Does {i}.")) for i in range(30)]
    write_kind(folder, "x", entries, [answer(f"x_{i}", f"f{i}") for i in range(30)])
    others = [function(f"g{i}", f"Is {i}.") for i in range(30)]
    write_kind(folder, "y_irrelevance", [entry("y_0", "?", *others)])
    return folder


def test_a_cut_holds_the_limit_and_half_of_it_answers_queries(large_source, tmp_path):
    counts = build_bfcl(tmp_path / "out", source=large_source, limit_functions=13)
    assert (counts.documents, counts.queries, counts.judgements) == (13, 7, 7)
    doc_ids = [record["_id"] for record in read_lines(tmp_path / "out/corpus.jsonl")]
    query_ids = [record["_id"] for record in read_lines(tmp_path / "out/queries.jsonl")]
    rows = [
        line.split("\t") for line in (tmp_path / "out/qrels/all.tsv").read_text().splitlines()[1:]
    ]
    assert [row[0] for row in rows] == query_ids
    assert {row[1] for row in rows} < set(doc_ids)
    assert len(set(doc_ids)) == 13
    # Both lists keep the order of the full collection.
    numbers = [int(query_id.removeprefix("x_")) for query_id in query_ids]
    assert numbers == sorted(numbers)


def test_a_cut_depends_on_its_seed_only(large_source, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_bfcl(tmp_path / name, source=large_source, limit_functions=12, seed=seed)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert (tmp_path / "a/queries.jsonl").read_bytes() != (
        tmp_path / "c/queries.jsonl"
    ).read_bytes()


def test_a_cut_keeps_all_relevant_documents_of_its_queries(source, tmp_path):
    full = build_bfcl(tmp_path / "full", source=source)
    everything = read_grades(tmp_path / "full")
    for limit in range(2, full.documents):
        for seed in range(5):
            out = tmp_path / f"{limit}-{seed}"
            counts = build_bfcl(out, source=source, limit_functions=limit, seed=seed)
            kept = read_grades(out)
            assert counts.documents == limit
            assert kept == {query_id: everything[query_id] for query_id in kept}


def test_a_limit_above_the_size_changes_nothing(source, tmp_path):
    build_bfcl(tmp_path / "full", source=source)
    build_bfcl(tmp_path / "limited", source=source, limit_functions=1000)
    assert snapshot(tmp_path / "full") == snapshot(tmp_path / "limited")


def test_limits_that_no_request_fits_in_are_refused(source, tmp_path):
    with pytest.raises(InputError, match="raise the limit"):
        build_bfcl(tmp_path / "out", source=source, limit_functions=1)
    with pytest.raises(ValueError, match="at least 1"):
        build_bfcl(tmp_path / "out", source=source, limit_functions=0)


def test_a_second_build_leaves_the_files_untouched(source, tmp_path):
    first = build_bfcl(tmp_path / "out", source=source)
    before = {name: (tmp_path / "out" / name).stat() for name in FILES}
    assert build_bfcl(tmp_path / "out", source=source) == first
    for name, old in before.items():
        new = (tmp_path / "out" / name).stat()
        assert (new.st_ino, new.st_mtime_ns) == (old.st_ino, old.st_mtime_ns)


def test_a_changed_or_damaged_collection_of_ours_is_replaced(source, tmp_path):
    build_bfcl(tmp_path / "out", source=source)
    wanted = snapshot(tmp_path / "out")
    build_bfcl(tmp_path / "out", source=source, limit_functions=3)
    assert snapshot(tmp_path / "out") != wanted
    build_bfcl(tmp_path / "out", source=source)
    assert snapshot(tmp_path / "out") == wanted
    (tmp_path / "out/corpus.jsonl").write_text("")
    build_bfcl(tmp_path / "out", source=source)
    assert snapshot(tmp_path / "out") == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_the_digest_follows_the_content(source, tmp_path):
    def digest(**options):
        build_bfcl(tmp_path / "out", source=source, **options)
        return json.loads((tmp_path / "out/meta.json").read_text())["digest"]

    assert digest() == digest() != digest(limit_functions=3)


def foreign_contents(out):
    return {path: path.is_file() and path.read_bytes() for path in [out, *out.rglob("*")]}


@pytest.mark.parametrize("foreign", ["empty", "other_meta", "note_added", "file"])
def test_what_this_builder_did_not_make_is_left_alone(source, tmp_path, foreign):
    out = tmp_path / "out"
    if foreign == "file":
        out.write_text("mine")
    elif foreign == "note_added":
        build_bfcl(out, source=source)
        (out / "notes.txt").write_text("mine")
    else:
        out.mkdir()
        if foreign == "other_meta":
            (out / "meta.json").write_text('{"builder": "someone else"}')
    before = foreign_contents(out)
    with pytest.raises(InputError, match=r"not \(only\) a collection made by this builder"):
        build_bfcl(out, source=source, limit_functions=3)
    assert foreign_contents(out) == before


def test_a_failed_write_leaves_the_old_collection_and_no_litter(source, tmp_path, monkeypatch):
    build_bfcl(tmp_path / "out", source=source)
    before = snapshot(tmp_path / "out")
    rename = Path.rename

    def fail_on_the_last_rename(self, target):
        if Path(target).name == "out" and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_last_rename)
    with pytest.raises(StoreError, match="No space left"):
        build_bfcl(tmp_path / "out", source=source, limit_functions=3)
    assert snapshot(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.encoders
def test_the_installed_package_gives_the_known_collection(tmp_path):
    try:
        version = importlib.metadata.version("bfcl-eval")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package bfcl-eval is not installed")
    counts = build_bfcl(tmp_path / "bfcl")
    assert (counts.documents, counts.requests_read, counts.queries) == (3258, 2501, 2380)
    meta = json.loads((tmp_path / "bfcl/meta.json").read_text())
    assert (meta["package_version"], meta["counts"]) == (version, counts._asdict())
    titles = Counter(record["title"] for record in read_lines(tmp_path / "bfcl/corpus.jsonl"))
    assert len(titles) == 1853
    assert sum(n > 1 for n in titles.values()) == 519
    assert (titles["get_current_weather"], titles["requests.get"]) == (62, 47)
    collection = read_beir(tmp_path / "bfcl")
    assert collection.name == "bfcl"
