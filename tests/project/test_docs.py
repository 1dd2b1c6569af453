from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

import era_cache
from era_cache.cli import export
from era_cache.collection.config import SplitConfig
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.config import FitConfig
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.sources import Reading
from era_cache.store.store import Store

ROOT = Path(__file__).parents[2]
EXPORTED = {"toy-model": "sentence-transformers", "toy-npz": "npz"}
"""Folder to kind, for blocks tagged ``test: exported``."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.is_file()]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
PYTHON_BLOCK = re.compile(
    r"(?:<!-- test: (?P<tag>[\w-]+) -->\n+)?^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
# A path on one machine; a test may write of an invented one such as /home/someone.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:root|work|tmp)/\w|(?<![\w./~-])/home/(?!someone)\w")


def links(text):
    """The relative targets of a page, code left out, without anchors."""
    found = LINK.findall(FENCED.sub("", text))
    return [t.partition("#")[0] for t in found if not re.match(r"[a-z]+:|#", t)]


def anchors(text):
    """The anchors that headings get on the usual hosts: lower case, hyphens for spaces."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def python_blocks():
    return [
        pytest.param(match["tag"], match["code"], id=f"{page.stem}-{number}")
        for page in PAGES
        if page.parent.name != "howto"
        or page.stem in ("elasticsearch", "harnesses")  # test_howto runs the others
        for number, match in enumerate(PYTHON_BLOCK.finditer(page.read_text("utf-8")), start=1)
    ]


def tracked_files():
    """Files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    targets = links(text)
    assert [t for t in targets if t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings(page):
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        path, sign, anchor = target.partition("#")
        if sign and not re.match(r"[a-z]+:", target):
            other = page.parent / path if path else page
            if other.suffix == ".md" and anchor not in anchors(other.read_text("utf-8")):
                broken.append(target)
    assert broken == []


def test_links_are_found_where_they_are():
    text = "[a](docs/x.md#part) ![b](b.png)\n```\n[no](no.md)\n```\n[c](https://d.org) [e](#here)\n"
    assert links(text) == ["docs/x.md", "b.png"]
    assert anchors("# Two Words, here\n```\n# no\n```\n") == {"two-words-here"}


@pytest.fixture(scope="session")
def toy_work(built_hash_store, tmp_path_factory):
    """A folder with ``stores/toy`` and ``adapters/toy``, for blocks tagged ``test: toy``."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(built_hash_store, folder / "stores" / "toy")
    fit_to_folder(
        Store.open(folder / "stores" / "toy"),
        "toy",
        folder / "adapters" / "toy",
        FitPlan(SplitConfig(labels=0.4), FitConfig(strengths=(8.0,), iterations=2)),
        Reading(device="cpu"),
    )
    return folder


@pytest.mark.parametrize(("tag", "code"), python_blocks())
def test_python_block_runs(tag, code, request, tmp_path, monkeypatch):
    assert tag in (None, "toy", "models", "exported", "harness")
    folder = tmp_path
    if tag == "harness":
        pytest.importorskip("pyterrier")
        warnings.simplefilter("ignore")
    if tag is not None:
        source = request.getfixturevalue("toy_work" if tag == "toy" else "built_real")
        folder = shutil.copytree(source, tmp_path / "toy")
    for name, kind in EXPORTED.items() if tag == "exported" else ():
        words = [str(folder / "adapters" / "toy"), "--to", kind, "--out", str(folder / name)]
        assert CliRunner().invoke(export.main, words).exit_code == 0
    monkeypatch.chdir(folder)
    exec(compile(code, "page.md", "exec"), {"__name__": "page"})


def resolves(name):
    """Whether a dotted name leads from the package to a module, or to something defined in one."""
    here = era_cache
    for part in name.split("."):
        try:
            here = getattr(here, part, None) or importlib.import_module(f"{here.__name__}.{part}")
        except (ImportError, AttributeError):
            return False
    return True


def names_in(page):
    """Names in backquotes that start at a package: `disk.files.staged`."""
    quoted = re.findall(r"`([a-z_0-9]+(?:\.\w+)+)`", page.read_text("utf-8"))
    packages = {path.name for path in Path(era_cache.__file__).parent.iterdir() if path.is_dir()}
    files = (".json", ".toml", ".h5")
    return [n for n in quoted if n.partition(".")[0] in packages and not n.endswith(files)]


@pytest.mark.parametrize("page", ["architecture.md", "trust.md"])
def test_every_name_that_a_page_about_the_code_mentions_exists(page):
    names = names_in(ROOT / "docs" / page)
    assert len(names) >= 12
    assert [name for name in names if not resolves(name)] == []


def test_ten_questions_have_an_answer_each():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = page.partition("## Ten questions")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 10
    assert all(question.strip().endswith("?") and answer.strip() for question, answer in rows[1:])


@pytest.mark.parametrize("name", ["disk.files.nowhere", "nowhere.files", "rank.ties.tie_order.x"])
def test_a_name_that_does_not_exist_is_noticed(name):
    assert not resolves(name)


def test_toy_folder_holds_what_readme_blocks_rely_on(toy_work):
    collection = Store.open(toy_work / "stores" / "toy").collection("toy")
    assert len(collection.doc_ids) == 30
    assert load_adapter(toy_work / "adapters" / "toy").weight.shape[0] == 16


def test_no_file_names_a_place_on_one_machine():
    found = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(lines, start=1)
            if MACHINE_PATH.search(line)
        ]
    assert found == []


@pytest.mark.parametrize("text", ["in /root/models", "'/work/x'", "=/tmp/x", "see /home/ann/x"])
def test_machine_paths_are_recognised(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["~/work/x", "data/tmp/x", "https://a.org/work/x", "/tmp"])
def test_other_paths_are_not_machine_paths(text):
    assert not MACHINE_PATH.search(text)
