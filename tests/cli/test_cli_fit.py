"""The forms of era-fit on the command line, and era-eval where several collections were fitted."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hash_encoder import HashEncoder
from planted import embedded, planted_texts

from era_cache.cli import evaluate, fit
from era_cache.cli.common import INTERRUPTED
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.fitting import recipes
from era_cache.fitting.crossfit import crossfit

QUICK = [
    *("--set", "iterations=2", "--set", "strengths=8", "--set", "folds=2", "--set", "scales=1"),
    *("--set", "reference-documents=40", "--set", "reference-steps=0/0.25"),
    *("--set", "memory_steps=0.2", "--labels", "30", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A store of ``planted`` and ``again`` (domain words), and ``prose`` (literature)."""
    store, _ = embedded(tmp_path_factory.mktemp("cli") / "store", planted_texts())
    for name, domain in (("again", "words"), ("prose", "literature")):
        texts = planted_texts(n_queries=40)
        queries = [f"{text} {name}" for text in texts.query_texts]
        embed_collection(
            store,
            texts._replace(name=name, domain=domain, query_texts=queries),
            large=HashEncoder(24, "large"),
            small=HashEncoder(16, "small"),
            config=EmbedConfig(align_documents=60),
        )
    return store.path


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def _fit(*arguments: object) -> Result:
    return run(fit.main, *arguments)


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result


def _interrupted(result: Result) -> Result:
    """What is ready is shown and kept, but scripts see that it is not all."""
    assert result.exit_code == 1
    assert "Adapter written to" in result.stdout
    assert "Traceback" not in result.output
    return result


def assert_fails(result: Result, *words: object) -> None:
    """One message on stderr that holds all words, nothing on stdout, exit code 1."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.output
    for word in words:
        assert str(word) in result.stderr


# Collections


def test_several_collections_give_one_adapter_and_the_command_that_measures_it(
    built, tmp_path
) -> None:
    out = tmp_path / "a"
    summary = json.loads(
        _done(_fit(built, "planted", "prose", "--out", out, "--json", *QUICK)).stdout
    )
    assert summary["collections"] == ["planted", "prose"]
    assert summary["queries"] == {"train": 30, "validation": 10, "test": 50}
    shown = _done(_fit(built, "planted", "prose", "--out", out, *QUICK)).stdout
    assert shown.startswith("30 training, 10 validation and 50 test queries")
    following = shlex.split(shown.splitlines()[-1].removeprefix("Next: "))
    assert following == ["era-eval", str(built), str(out), "--collection", "planted"]
    result = _done(run(evaluate.main, *following[1:], "--device", "cpu"))
    assert str(out / "evaluation" / "planted" / "report.html") in result.stdout


def test_era_eval_measures_all_collections_or_those_named(built, tmp_path) -> None:
    _done(_fit(built, "planted", "prose", "--out", tmp_path / "a", *QUICK))
    record = json.loads(_done(run(evaluate.main, built, tmp_path / "a", "--json")).stdout)
    assert [one["name"] for one in record["collections"]] == ["planted", "prose"]
    for name, queries in (("prose", 20), ("again", 20)):  # fitted on, and not
        options = ["--collection", name, "--json", "--device", "cpu"]
        record = json.loads(_done(run(evaluate.main, built, tmp_path / "a", *options)).stdout)
        assert [one["name"] for one in record["collections"]] == [name]
        assert record["split"]["test"] == queries
        stored = tmp_path / "a" / "evaluation" / name / "evaluation.json"
        assert json.loads(stored.read_text("utf-8")) == record
    result = run(evaluate.main, built, tmp_path / "a", "--collection", "other")
    assert_fails(result, "no collection 'other'")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only-domain", "words"], ["again", "planted"]),
        (["--only-domain", "literature"], ["prose"]),
        (["--holdout-domain", "words"], ["prose"]),
        (["--holdout-domain", "law"], ["again", "planted", "prose"]),
        (["planted", "prose", "--only-domain", "words"], ["planted"]),
        (["planted", "prose", "--holdout-domain", "words"], ["prose"]),
    ],
)
def test_domains_choose_the_collections(built, tmp_path, arguments, expected) -> None:
    result = _done(_fit(built, *arguments, "--out", tmp_path / "a", "--json", *QUICK))
    assert json.loads(result.stdout)["collections"] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only-domain", "law"],
        ["planted", "--holdout-domain", "words"],
        ["--only-domain", "words", "--holdout-domain", "words"],
    ],
)
@pytest.mark.parametrize("form", [[], ["sweep", "--grid", "folds=2"]], ids=str)
def test_no_collection_left_is_an_error(built, tmp_path, form, arguments) -> None:
    result = _fit(*form[:1], built, *arguments, "--out", tmp_path / "a", *form[1:])
    assert_fails(result, "No collection is left of", "meta.json")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("form", [[], ["sweep", "--grid", "folds=2"]], ids=str)
def test_naming_no_collection_is_an_error(built, tmp_path, form) -> None:
    result = _fit(*form[:1], built, "--out", tmp_path / "a", *form[1:])
    assert_fails(result, "Name a collection", "--only-domain")


# Settings


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("warmth=1", ["'warmth=1'", "temperature"]),
        ("temperature", ["NAME=VALUE"]),
        ("iterations=many", ["'iterations=many'", "a whole number"]),
        ("temperature=-1", ["temperature -1.0", "at least 1e-06"]),
        ("align=best", ["align 'best'", "procrustes"]),
        ("seed=99999999999999999999", ["seed 99999999999999999999", "at most"]),
        ("strengths=1/2", ["from strong to weak"]),
    ],
)
@pytest.mark.parametrize("form", [[], ["sweep", "--grid", "folds=2"]], ids=str)
def test_a_wrong_setting_is_explained(built, tmp_path, form, setting, words) -> None:
    result = _fit(*form[:1], built, "planted", "--out", tmp_path / "a", "--set", setting, *form[1:])
    assert_fails(result, *words)
    assert not (tmp_path / "a").exists()


def test_settings_reach_the_recipe(built, tmp_path) -> None:
    options = ["--out", tmp_path / "a", *QUICK, "--seed", "7", "--set", "align=ridge"]
    _done(_fit(built, "planted", *options, "--align-documents", "30"))
    recipe = json.loads((tmp_path / "a" / "config.json").read_text())["recipe"]
    assert (recipe["iterations"], recipe["strengths"], recipe["align"]) == (2, [8.0], "ridge")
    assert recipe["reference_steps"] == [[0.0, 1], [0.25, 1]]
    assert (recipe["seed"], recipe["align_documents"]) == (7, 30)


def test_a_label_count_limits_the_training_queries(built, tmp_path) -> None:
    options = ["--out", tmp_path / "a", *QUICK, "--label-count", "5", "--json"]
    summary = json.loads(_done(_fit(built, "planted", *options)).stdout)
    assert summary["queries"]["train"] == 5
    _done(run(evaluate.main, built, tmp_path / "a", "--device", "cpu"))


# Wrong use


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["store"],
        ["store", "toy", "--out", "o", "--recipe", "best"],
        ["store", "toy", "--out", "o", "--label-count", "0"],
        ["store", "toy", "--out", "o", "--candidate", "large"],
        ["store", "toy", "--out", "o", "--split", "other"],
        ["store", "toy", "--out", "o", "--seed", "-1"],
        ["store", "toy", "--out", "o", "--seed", "9223372036854775808"],
        ["store", "toy", "--out", "o", "--curve", ""],
        ["store", "toy", "--out", "o", "--grid", "folds=2"],
        ["sweep"],
        ["sweep", "store", "toy", "--out", "o"],
        ["sweep", "store", "toy", "--grid", "folds=2"],
        ["sweep", "store", "toy", "--out", "o", "--grid", "folds=2", "--candidate", "aligned"],
        ["sweep", "store", "toy", "--out", "o", "--grid", "folds=2", "--random", "0"],
        ["sweep", "store", "toy", "--out", "o", "--grid", "folds=2", "--labels", "5,"],
        ["sweep", "store", "toy", "--out", "o", "--grid", "folds=2", "--labels", ""],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(arguments) -> None:
    result = _fit(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_the_published_recipe_has_settings_of_its_own(built, tmp_path) -> None:
    options = ["--out", tmp_path / "a", "--recipe", "paper"]
    for setting, message in (
        ("iterations=2", "expected NAME=VALUE with one of seed, mode"),
        ("mode=neither", "mode 'neither': expected one of both, alignment_only, label_only"),
        ("learning_rates=0.1/0.2/0.3", "expected one decay for each rate"),
    ):
        result = _fit(built, "planted", *options, "--set", setting)
        assert result.exit_code == 1
        assert message in result.stderr
        assert not (tmp_path / "a").exists()
    few = ["--set", "mode=label_only", "--set", "epochs=3", "--labels", 40, "--json"]
    found = json.loads(_done(_fit(built, "planted", *options, *few)).stdout)
    assert found["chosen"] == "paper"
    assert set(found["validation"]) == {"small", "paper"}


@pytest.mark.parametrize("form", ["sweep", "align"])
def test_each_form_has_help_with_an_example_that_parses(form) -> None:
    result = _done(CliRunner().invoke(fit.main, [form, "--help"], terminal_width=80))
    assert max(map(len, result.stdout.splitlines())) <= 80
    lines = result.stdout.partition("Example:\n")[2].partition("Options:")[0]
    words = shlex.split(lines.replace("\\\n", " "))
    assert words[:2] == ["era-fit", form]
    command = fit.main.forms[form]
    command.parse_args(click.Context(command), words[2:])
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


def test_a_form_that_is_misspelt_is_named_with_the_nearest(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    result = _fit("swep", "store", "toy", "--out", "o")
    assert result.exit_code == 2
    assert "no form of main is called so. Did you mean 'sweep'?" in result.stderr
    (tmp_path / "swep").mkdir()  # a store may be called so
    assert "no store.json" in _fit("swep", "toy", "--out", "o").stderr


def test_era_fit_tells_of_its_other_forms() -> None:
    assert "`era-fit sweep`" in " ".join(_done(_fit("--help")).stdout.split())


@pytest.mark.parametrize("name", ["sweep", "align"])
def test_a_store_named_like_another_form_is_given_with_its_folder(
    built, tmp_path, monkeypatch, name
) -> None:
    shutil.copytree(built, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    _done(_fit(f"./{name}", "planted", "--out", "a", *QUICK))
    assert (tmp_path / "a" / "config.json").is_file()
    # The command that a sweep of it prints means the store, too.
    swept = _done(_fit("sweep", name, "planted", "--out", "s", "--grid", "temperature=0.1", *QUICK))
    words = shlex.split(swept.stdout.splitlines()[-1].partition(": ")[2])
    assert words[:3] == ["era-fit", f"./{name}", "planted"]
    _done(_fit(*words[1:]))


# Interruptions


def _interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Ctrl-C during the ``at``-th candidate that is trained."""
    calls: list[int] = []

    def interrupted(request, **options):
        calls.append(at)
        if len(calls) == at:
            raise KeyboardInterrupt
        return crossfit(request, **options)

    monkeypatch.setattr(recipes, "crossfit", interrupted)


def test_ctrl_c_keeps_what_is_ready_and_resume_goes_on(built, tmp_path, monkeypatch) -> None:
    _interrupt(monkeypatch, 2)
    result = _interrupted(_fit(built, "planted", "--out", tmp_path / "a", *QUICK))
    assert "Interrupted: era-dual, small+ not fitted. The same command with --res" in result.stderr
    monkeypatch.setattr(recipes, "crossfit", crossfit)
    result = _done(_fit(built, "planted", "--out", tmp_path / "a", "--resume", "--json", *QUICK))
    assert json.loads(result.stdout)["missing"] == []
    assert "Interrupted" not in result.stderr
    result = _fit(built, "again", "--out", tmp_path / "a", "--resume", *QUICK)
    assert_fails(result, "another collection", "--resume")


def test_ctrl_c_during_the_curve_ends_the_curve(built, tmp_path, monkeypatch) -> None:
    _interrupt(monkeypatch, 4)  # the first candidate of the first share
    options = ["--out", tmp_path / "a", "--curve", "10,20,30", *QUICK]
    result = _interrupted(_fit(built, "planted", *options))
    assert "Interrupted: era, era-dual, small+ not fitted" in result.stderr
    assert [path.name for path in (tmp_path / "a" / "curve").iterdir()] == ["10"]
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["missing"] == []


# Sweeps


def _sweep(built: Path, out: Path, *options: object) -> Result:
    return _fit("sweep", built, "planted", "--out", out, *QUICK, *options)


def test_a_sweep_prints_its_rows_and_writes_tables(built, tmp_path) -> None:
    out = tmp_path / "swept"
    result = _done(_sweep(built, out, "--grid", "temperature=0.02,0.05,0.5", "--candidate", "era"))
    lines = result.stdout.splitlines()
    head = [
        "candidate",
        "temperature",
        "labels_percent",
        "split_seed",
        "held_out",
        "round",
        "chosen",
    ]
    assert lines[0].split() == head
    assert len(lines) == 5
    assert {path.name for path in out.iterdir()} == {
        "rows.jsonl",
        "sweep.csv",
        "sweep.json",
        "sweep.html",
    }
    record = json.loads((out / "sweep.json").read_text("utf-8"))
    assert (record["format"], record["version"]) == ("era-sweep", 1)
    rows = list(csv.DictReader((out / "sweep.csv").read_text("utf-8").splitlines()))
    assert [float(row["held_out"]) for row in rows] == [r["held_out"] for r in record["rows"]]
    means = [row["held_out"] for row in record["rows"]]
    assert means == sorted(means, reverse=True)
    for line, row in zip(lines[1:4], record["rows"], strict=True):
        assert line.split()[:2] == ["era", str(row["temperature"])]
        assert f"{row['held_out']:.4f}" in line
    page = (out / "sweep.html").read_text("utf-8")
    assert f"3 fits; the best reaches {means[0]:.4f} held-out nDCG@10" in page
    assert "split seed 42: 3 fits" in result.stderr


def _invoked(command: str, out: Path) -> dict[str, object]:
    """Run a printed command, but into ``out``; gives the adapter's configuration."""
    words = shlex.split(command)
    assert words[0] == "era-fit"
    words[words.index("--out") + 1] = str(out)
    _done(_fit(*words[1:]))
    return json.loads((out / "config.json").read_text())


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (["temperature=0.02"], {"temperature": 0.02}),
        (["learn_temperature=true"], {"learn_temperature": True}),
        (["reference_steps=0.1/0.5x2"], {"reference_steps": [[0.1, 1], [0.5, 2]]}),
        (["default_reference_step=0.25x3"], {"default_reference_step": [0.25, 3]}),
        (["memory_steps="], {"memory_steps": []}),
        (["scales=0.123456789/1"], {"scales": [0.123456789, 1.0]}),
        (["align=mixture", "seed=3"], {"align": "mixture", "seed": 3}),
        (["align-documents=20"], {"align_documents": 20}),
    ],
    ids=str,
)
def test_the_printed_command_fits_the_best_row(built, tmp_path, grid, expected) -> None:
    options = [word for one in grid for word in ("--grid", one)]
    options += ["--seed", "5", "--label-count", "9"]
    result = _done(_sweep(built, tmp_path / "swept", *options))
    line = result.stdout.splitlines()[-1]
    assert line.startswith("To fit the best in full: ")
    config = _invoked(line.partition(": ")[2], tmp_path / "a")
    recipe = config["recipe"]
    assert {name: recipe[name] for name in expected} == expected
    assert (recipe["iterations"], recipe["strengths"]) == (2, [8.0])
    assert recipe["seed"] == expected.get("seed", 5)
    assert config["chosen"] == "era-dual"
    assert (config["split"]["labels"], config["split"]["count"]) == (0.3, 9)
    assert (tmp_path / "swept" / "sweep.html").read_text("utf-8").count("era-fit ") == 1
    (row,) = json.loads((tmp_path / "swept" / "sweep.json").read_text())["rows"]
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    fitted = metrics["candidates"]["era-dual"]["validation"]
    assert fitted == pytest.approx(row["held_out"], abs=1e-4)


def test_the_printed_command_names_share_seed_and_candidate_of_the_best_row(
    built, tmp_path
) -> None:
    options = ["--grid", "temperature=0.05,0.5", "--candidate", "era", "--candidate", "small+"]
    options += ["--labels", "10,20", "--split-seeds", "2", "--json"]
    found = json.loads(_done(_sweep(built, tmp_path / "swept", *options)).stdout)
    assert len(found["rows"]) == 16
    best = found["rows"][0]
    largest = [r for r in found["rows"] if (r["round"], r["labels_percent"]) == ("full", 20)]
    assert best["held_out"] == max(row["held_out"] for row in largest)
    config = _invoked(found["command"], tmp_path / "a")
    assert config["chosen"] == best["candidate"]
    assert config["split"]["labels"] == best["labels_percent"] / 100
    assert config["split"]["seed"] == best["split_seed"]
    assert config["recipe"]["temperature"] == best["temperature"]


def test_a_command_with_words_of_the_shell_is_quoted(built, tmp_path, monkeypatch) -> None:
    store = shutil.copytree(built, tmp_path / "my store; $(x)")
    result = _done(_sweep(store, tmp_path / "swept", "--grid", "temperature=0.1"))
    command = result.stdout.splitlines()[-1].partition(": ")[2]
    assert shlex.split(command)[1] == str(store)
    _invoked(command, tmp_path / "a")


def test_a_sweep_goes_on_where_it_is(built, tmp_path) -> None:
    options = ["--grid", "temperature=0.05,0.5", "--json"]
    first = _done(_sweep(built, tmp_path, *options))
    again = _done(_sweep(built, tmp_path, *options))
    assert again.stdout == first.stdout
    assert "split seed 42: all 2 fits are there" in again.stderr
    assert_fails(_sweep(built, tmp_path, *options, "--split", "source"), "train", "--split paper")


def test_a_second_grid_in_the_same_folder_shows_its_own_columns(built, tmp_path) -> None:
    _done(_sweep(built, tmp_path, "--grid", "temperature=0.5", "--set", "align=ridge"))
    options = ["--grid", "align=ridge,mixture", "--set", "temperature=0.5", "--no-halving"]
    result = _done(_sweep(built, tmp_path, *options))
    assert result.stdout.split()[:2] == ["candidate", "align"]
    command = result.stdout.splitlines()[-1]
    best = result.stdout.splitlines()[1].split()[1]
    assert f"--set align={best}" in command
    assert "--set temperature=0.5" in command


def test_many_rows_are_cut_short_on_the_screen_only(built, tmp_path) -> None:
    values = ",".join(str(n / 100) for n in range(1, 16))
    options = ["--grid", f"temperature={values}", "--candidate", "era"]
    result = _done(_sweep(built, tmp_path, *options))
    assert f"… and 3 more in {tmp_path / 'sweep.html'}" in result.stdout
    assert len(json.loads((tmp_path / "sweep.json").read_text())["rows"]) == 15


def test_random_draws_so_many_combinations_and_the_same_ones_again(built, tmp_path) -> None:
    options = ["--grid", "temperature=0.05,0.1,0.5", "--grid", "align=ridge,mixture", "--json"]
    drawn = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        found = _done(
            _sweep(built, tmp_path / folder, *options, "--random", "2", "--seed", seed)
        ).stdout
        rows = json.loads(found)["rows"]
        drawn.append({(row["temperature"], row["align"]) for row in rows})
    assert [len(one) for one in drawn] == [2, 2, 2]
    assert drawn[0] == drawn[1] != drawn[2]
    found = _done(_sweep(built, tmp_path / "d", *options, "--random", "99")).stdout
    assert len(json.loads(found)["rows"]) == 6


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (["warmth=1,2"], ["'warmth=1'"]),
        (["temperature=0.1,x"], ["'temperature=x'", "a number"]),
        (["temperature=0.1", "temperature=0.2"], ["given twice"]),
        (["temperature=0.1,-1"], ["temperature -1.0"]),
        (["temperature"], ["NAME=VALUE"]),
    ],
)
def test_a_wrong_grid_is_explained(built, tmp_path, grid, words) -> None:
    options = [word for one in grid for word in ("--grid", one)]
    assert_fails(_sweep(built, tmp_path / "swept", *options), *words)
    assert not (tmp_path / "swept").exists()


def test_a_folder_of_other_files_is_not_swept_into(built, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    result = _sweep(built, tmp_path, "--grid", "temperature=0.1")
    assert_fails(result, tmp_path, "holds other files")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Curves


def _each(*arguments: object) -> Result:
    words = ["each", *map(str, arguments), "--device", "cpu"]
    return CliRunner().invoke(evaluate.main, words)


def test_a_curve_measures_each_share_and_shuffle(built, tmp_path) -> None:
    options = ["--labels", "10,30", "--split-seeds", "2", "--json"]
    result = _done(_each(built, "planted", "again", "--out", tmp_path, *QUICK, *options))
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    assert [point["labels"] for point in record["curve"]] == [0.1, 0.3]
    names = ["small", "aligned", "era-zero", "era", "era-dual", "small+", "shipped"]
    for point in record["curve"]:
        assert list(point["candidates"]) == names
        assert all(one["sd"] is not None for one in point["candidates"].values())
    # What needs no label is the same at every share.
    first, last = (point["candidates"] for point in record["curve"])
    assert first["small"] == last["small"]
    assert first["era"] != last["era"]
    assert "8 of 8: again, 30 % of the labels, split seed 43" in result.stderr
    assert (tmp_path / "report.html").is_file()


def test_an_interrupted_curve_says_that_the_same_command_goes_on(
    built, tmp_path, monkeypatch
) -> None:
    _interrupt(monkeypatch, 5)
    options = ["--out", tmp_path, *QUICK, "--labels", "10,20,30", "--json"]
    assert_fails(_each(built, "planted", *options), INTERRUPTED)
    monkeypatch.setattr(recipes, "crossfit", crossfit)
    result = _done(_each(built, "planted", *options))
    assert result.stderr.count(" % of the labels") == 2
    assert len(json.loads(result.stdout)["curve"]) == 3


def test_a_full_disk_is_said_and_no_row_is_lost(built, tmp_path, monkeypatch) -> None:
    _done(_sweep(built, tmp_path, "--grid", "temperature=0.1"))
    before = (tmp_path / "rows.jsonl").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("era_cache.fitting.finished_rows.os.fsync", full)
        assert_fails(_sweep(built, tmp_path, "--grid", "temperature=0.2"), "The disk is full")
    assert (tmp_path / "rows.jsonl").read_bytes().startswith(before)
    _done(_sweep(built, tmp_path, "--grid", "temperature=0.1,0.2"))


def test_alignments_are_compared_by_method_and_number(built, tmp_path) -> None:
    options = ["--counts", "10,40,5000", "--document-cost", "2", "--json", "--out", tmp_path]
    found = json.loads(_done(_fit("align", built, "planted", *options)).stdout)
    rows = found["rows"]
    counts = [row["documents"] for row in rows if row["method"] == "procrustes"]
    assert counts == [48, 10, 40, 48]  # of 60 documents a fifth is held out
    assert {row["texts"] for row in rows} == {12}
    assert {row["method"] for row in rows} >= {"ridge", "whitened", "mixture"}
    assert (tmp_path / "align.html").is_file()
    worth = [(row["documents"], row["cost"]) for row in found["worth"]]
    assert worth == [(0, 0), (10, 20), (40, 80), (60, 120)]  # by labels: none is held out
    assert found["worth"][0]["gain"] == 0
    assert "<svg" in (tmp_path / "worth.html").read_text(encoding="utf-8")
    assert _fit("align", built, "planted", "--counts", "-1").exit_code == 2
    assert _fit("align", built, "planted", "--document-cost", "nan").exit_code == 2
