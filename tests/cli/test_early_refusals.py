"""What cannot work is refused in the first moment, not after the fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from era_cache.cli import evaluate, fit
from era_cache.cli.common import percent, percent_text
from era_cache.disk.files import check_writable
from era_cache.errors import StoreError

RUN = """
import json, sys
from click.testing import CliRunner
from era_cache.cli import embed, evaluate, fit, store
mains = {"embed": embed.main, "eval": evaluate.main, "fit": fit.main, "store": store.main}
found = []
for name, *words in json.loads(sys.argv[1]):
    command = mains[name]
    forms = getattr(command, "forms", {})
    if words[0] in forms:
        command = forms[words.pop(0)]
    result = CliRunner().invoke(command, words)
    found.append([result.exit_code, result.output])
print(json.dumps([found, "torch" in sys.modules]))
"""


def test_impossible_shares_and_outputs_are_refused_before_torch_is_loaded(
    built_hash_store, built_adapter, toy, tmp_path
):
    store, in_the_way = str(built_hash_store), tmp_path / "file"
    in_the_way.write_text("mine")
    grid = ["--grid", "temperature=0.05"]
    models = ["--query-model", "a", "--doc-model", "b"]
    cases = [
        (["fit", store, "toy", "--labels", "60", "--out", "x"], "at most 40%"),
        (["fit", store, "toy", "--curve", "20,60", "--out", "x"], "at most 40%"),
        (["fit", "sweep", store, "toy", *grid, "--labels", "20,60", "--out", "x"], "at most 40%"),
        (["eval", "each", store, "toy", "--labels", "20,60", "--out", "x"], "at most 40%"),
        (["eval", "each", store, "--labels", "20,60", "--out", "x"], "at most 40%"),
        *(
            ([*words, str(place)], str(place))
            for place in (in_the_way, in_the_way / "x")
            for words in (
                ["fit", "sweep", store, "toy", *grid, "--out"],
                ["fit", "align", store, "toy", "--out"],
                ["eval", "each", store, "--out"],
                ["eval", store, str(built_adapter), "--out"],
                ["eval", "report", str(built_adapter), "--out"],
                ["embed", str(toy), *models, "--store"],
            )
        ),
        (["fit", store, "toy", "--out", str(in_the_way / "x")], str(in_the_way)),
        (["store", "export", store, "x", "--out", str(in_the_way / "x.npy")], str(in_the_way)),
    ]
    words = json.dumps([one for one, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", RUN, words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    found, loaded = json.loads(done.stdout)
    for (code, output), (one, message) in zip(found, cases, strict=True):
        assert code == 1, (one, output)
        assert message in output
    assert not loaded
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_can_be_made_later_is_left_unmade(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for wrong in ("link", "link/x"):
        with pytest.raises(StoreError, match="writing failed"):
            check_writable(tmp_path / wrong)
    if os.geteuid():  # root may write everywhere
        tmp_path.chmod(0o500)
        with pytest.raises(StoreError, match="Permission denied"):
            check_writable(tmp_path / "a")
        tmp_path.chmod(0o700)
    with pytest.raises(StoreError, match="writing failed"):
        check_writable(Path("/proc/nope/x"))


DRAW = """
from era_cache.report.svg import draw_svg
print(draw_svg(lambda figure: figure.subplots().plot([1, 2], label="x"), (3, 2), "p", "A line"))
"""


def drawn(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRAW],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )


def test_drawings_do_not_depend_on_the_configuration_of_matplotlib(tmp_path):
    plain = drawn(tmp_path)
    assert (plain.returncode, plain.stderr) == (0, "")
    settings = "backend: foo\nfont.size: 70\nlines.linewidth: 30\nsvg.fonttype: path\nnonsense: 1\n"
    rc = tmp_path / "rc"
    rc.write_text(settings)
    assert drawn(tmp_path, MPLBACKEND="nonsense", MATPLOTLIBRC=str(rc)).stdout == plain.stdout
    (tmp_path / "matplotlibrc").write_text(settings)
    here = drawn(tmp_path)
    assert (here.stdout, here.stderr) == (plain.stdout, "")
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
    broken = drawn(tmp_path)
    assert broken.returncode == 1
    assert "InputError: matplotlib cannot be loaded" in broken.stderr
    assert "Look for a file matplotlibrc in this folder" in broken.stderr


@pytest.mark.parametrize("command", ["fit", "sweep", "eval"])
def test_a_share_that_was_meant_as_a_fraction_is_asked_about(built_hash_store, tmp_path, command):
    words = [built_hash_store, "toy", "--out", tmp_path / "x", "--labels", "0.2"]
    forms = {
        "fit": (fit.main, words),
        "sweep": (fit.main, ["sweep", *words, "--grid", "temperature=0.05"]),
        "eval": (evaluate.main, ["each", *words]),
    }
    result = CliRunner().invoke(forms[command][0], list(map(str, forms[command][1])))
    assert result.exit_code == 2
    assert "'0.2' is read as percent. Did you mean 20?" in result.stderr
    assert "written 0.2%" in result.stderr


@pytest.mark.parametrize(("text", "share"), [("20", 0.2), ("0.5%", 0.005), ("0", 0.0), ("1", 0.01)])
def test_shares_are_percent_and_written_as_they_are_read(text, share):
    assert percent(text) == share
    assert percent(percent_text(share)) == share
