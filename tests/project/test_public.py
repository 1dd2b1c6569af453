"""What `import era_cache` gives, and what it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import era_cache

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_public_names_are_there_and_on_the_page():
    table = PAGE.read_text("utf-8").partition("## Public names")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `era_cache\.(\w+)", table, re.MULTILINE)
    modules = {"api", "errors"}
    assert sorted(listed) == sorted({*era_cache.__all__, *modules} - {"__version__"})
    assert set(era_cache.__all__) <= set(dir(era_cache))
    for name in era_cache.__all__:
        assert getattr(era_cache, name) is not None


def test_names_are_those_of_their_homes():
    from era_cache.api import RetrievalAdapter, fit
    from era_cache.store import Store, store

    assert (era_cache.fit, era_cache.RetrievalAdapter) == (fit, RetrievalAdapter)
    assert era_cache.Store is Store is store.Store


@pytest.mark.parametrize("package", ["", ".store"])
def test_other_names_are_attribute_errors(package):
    code = f"import era_cache{package} as p\ntry: p.nothing\nexcept AttributeError: print('none')"
    assert _python(code) == "none\n"


def test_importing_the_package_loads_nothing_and_takes_no_time():
    code = (
        "import sys, time; begun = time.process_time(); import era_cache;"
        "print(time.process_time() - begun, *sys.modules)"
    )
    runs = [_python(code).split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.05
    assert not {"torch", "numpy", "h5py", "click", "msgspec"} & set(runs[0])


def test_the_function_stays_a_function_when_its_package_is_loaded():
    code = (
        "import era_cache, era_cache.fitting.stack, era_cache.api; print(callable(era_cache.fit))"
    )
    assert _python(code) == "True\n"
