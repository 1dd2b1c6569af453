"""The how-tos, run as they stand, against the real engines; the index is never touched."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import era_cache

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "howto"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NEEDS = {
    "faiss": ["faiss"],
    "qdrant": ["qdrant_client"],
    "lancedb": ["lancedb"],
    "pgvector": ["psycopg", "pgserver"],
    "chroma": ["chromadb"],
    "sqlite": ["sqlite_vec", "apsw"],
}
MOST_LINES = 60


@pytest.fixture
def place(toy, models, tmp_path, monkeypatch) -> Path:
    """A folder with data/toy, and an environment as the pages ask for."""
    shutil.copytree(toy, tmp_path / "data" / "toy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMALL", str(models["small"]))
    monkeypatch.setenv("LARGE", str(models["large"]))
    monkeypatch.setenv("ANONYMIZED_TELEMETRY", "False")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


@contextlib.contextmanager
def _engine(name: str, place: Path) -> Iterator[None]:
    """What a page's engine needs to run: for PostgreSQL, a server."""
    if name != "pgvector":
        yield
        return
    import pgserver

    server = pgserver.get_server(place / "pgdata", cleanup_mode="stop")
    os.environ["PG"] = server.get_uri()
    try:
        yield
    finally:
        del os.environ["PG"]
        server.cleanup()


@pytest.mark.encoders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDS)
def test_a_how_to_runs_and_asks_its_engine_as_we_would(name, place, capsys) -> None:
    for module in NEEDS[name]:
        pytest.importorskip(module)
    blocks = BLOCK.findall((PAGES / f"{name}.md").read_text("utf-8"))
    assert [kind for kind, _ in blocks] == ["python", "sh", "python"]
    assert sum(1 for _, code in blocks for line in code.splitlines() if line.strip()) < MOST_LINES
    page: dict = {}
    with _engine(name, place), contextlib.ExitStack() as stack:
        # A program's connections end with it; here they would outlive the test.
        stack.callback(lambda: [page[one].close() for one in ("db", "client") if one in page])
        for kind, code in blocks:
            if kind == "sh":
                done = subprocess.run(
                    ["bash", "-euc", code], capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
            else:
                exec(compile(code, f"{name}.md", "exec"), page)
        printed = capsys.readouterr().out
        assert re.findall(r"^(.*): recall@3 \d+ %$", printed, re.MULTILINE) == [
            "today",
            "without labels",
            "with labels",
        ]
        searcher = era_cache.Searcher("adapters/labelled", "stores/toy", device="cpu")
        answers = searcher.search(page["asked"], k=3)
        for row, answer in zip(page["ways"]["with labels"], answers, strict=True):
            assert list(page["search"](row)) == [one.id for one in answer]
    # Every document's vector came from the engine; none was encoded again.
    said = done.stdout + done.stderr
    assert "30" in said


def test_every_page_has_its_test() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"README", "elasticsearch", "harnesses"}
    # Those that are commands alone are checked with all other command lines.
    pages = {page for page in pages if "```python" in (PAGES / f"{page}.md").read_text("utf-8")}
    assert pages == set(NEEDS)
