"""The pictures of the README: the search page and a report, as a browser shows them.

Where ``ERA_PICTURES`` names a folder that ``make demo`` left, they are made of it and written to
docs/images; else of the toy collection, to see that they can be made.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from command_case import done, run
from running_server import serving

from era_cache.cli import evaluate
from era_cache.serve.engine import Lookup
from era_cache.serve.http.app import App
from era_cache.serve.models import load_models
from era_cache.serve.source import default_candidates, open_source
from era_cache.serve.texts import matching_texts
from era_cache.store.store import Store

IMAGES = Path(__file__).parents[2] / "docs" / "images"
DEMO = os.environ.get("ERA_PICTURES")
WIDTH, HEIGHT = 1280, 800
LARGEST = 400_000


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@pytest.mark.encoders
def test_pictures_can_be_made(watch, toy, built_real, tmp_path) -> None:
    from era_cache.collection.beir import read_beir

    adapter, store, folder = built_real / "adapters" / "toy", built_real / "stores" / "toy", toy
    query, target = "how do bees make honey?", tmp_path
    if DEMO:
        adapter, store, folder = Path(DEMO, "adapter"), Path(DEMO, "store"), Path(DEMO, "bfcl")
        query, target = "What will the weather be like in Berlin tomorrow?", IMAGES
        target.mkdir(exist_ok=True)
    report = adapter / "evaluation" / "report.html"
    if not report.is_file():
        done(run(evaluate.main, store, adapter, "--out", tmp_path / "evaluation"))
        report = tmp_path / "evaluation" / "report.html"
    source = open_source(Store.open(store), adapter)
    shown = default_candidates(source)
    models = load_models(source.encoders.models(), {}, device="cpu", look="folders")
    texts = matching_texts(source.collection, read_beir(folder))
    lookup = Lookup(source, shown, models=models, texts=texts, device="cpu")
    lookup.find("the first search reads the texts", names=shown)
    seen = watch(viewport={"width": WIDTH, "height": HEIGHT})
    with serving(App({}, lookup, shown, seed=0)) as running:
        seen.page.goto(f"{running.url}?query={query}&k=4")
        seen.page.wait_for_selector(".column li")
        seen.page.screenshot(path=target / "search.png")
    seen.page.goto(report.resolve().as_uri())
    seen.page.wait_for_selector("svg")
    seen.page.screenshot(path=target / "report.png")
    assert seen.page.locator("svg").count() >= 1
    assert not seen.errors
    for name in ("search.png", "report.png"):
        assert size_of(target / name) == (WIDTH, HEIGHT)
        assert (target / name).stat().st_size < LARGEST


def test_the_readme_shows_pictures_that_are_there() -> None:
    readme = (IMAGES.parents[1] / "README.md").read_text("utf-8")
    for name in ("search.png", "report.png"):
        assert f"](docs/images/{name})" in readme
        assert size_of(IMAGES / name) == (WIDTH, HEIGHT)
