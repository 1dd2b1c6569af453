from __future__ import annotations

import ast
import importlib
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import era_cache

PACKAGE = Path(era_cache.__file__).parent

HEAVY = [
    *("torch", "h5py", "numpy", "sentence_transformers", "matplotlib", "pyarrow", "safetensors"),
    *("faiss", "msgspec", "jinja2", "rich"),
]


def module_names():
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if name := ".".join(part for part in parts if part != "__init__"):
            names.append(name)
    return names


MODULES = module_names()
PACKAGES = [path.name for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").is_file()]


def path_of(name):
    folder = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def name_is_package(name):
    return path_of(name).name == "__init__.py"


def tree_of(name):
    return ast.parse(path_of(name).read_text(encoding="utf-8"))


def imported(tree):
    """Yield (module, names or None) of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield node.module, [alias.name for alias in node.names]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_in_two_lines_what_comes_in_and_what_goes_out(name):
    lines = ast.get_docstring(tree_of(name)).splitlines()
    said = " ".join(lines[2:])
    assert lines[0]
    assert lines[1] == ""
    assert said.startswith("In: ")
    assert "Out: " in said


def test_the_top_of_the_package_can_be_read_at_a_glance():
    own = {"__pycache__", "__main__.py"}  # Python wants them here
    shown = [path.name for path in PACKAGE.iterdir() if path.name not in own]
    assert len(shown) <= 16


@pytest.mark.parametrize(
    "command",
    [
        "embed",
        "fit",
        "evaluate",
        "export",
        "search",
        "serve",
        "store",
        "store_import",
        "store_vectors",
    ],
)
def test_command_imports_nothing_heavy_before_it_runs(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import era_cache.cli.{command}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert loaded & set(HEAVY) == set()


@pytest.mark.parametrize("name", MODULES)
def test_torch_and_plotting_wait_until_a_function_needs_them(name):
    top = ast.Module([n for n in tree_of(name).body if not isinstance(n, ast.If)], [])
    direct = [
        module.split(".")[0]
        for node in top.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module, _ in imported(node)
    ]
    if name != "serve.export.modeling_era":  # it travels without us, and is torch from end to end
        assert not set(direct) & {"torch", "h5py", "sentence_transformers", "matplotlib", "faiss"}


@pytest.mark.parametrize("name", MODULES)
def test_all_names_exist_and_are_public(name):
    module = importlib.import_module(f"era_cache.{name}")
    if name_is_package(name) and not hasattr(module, "__all__"):
        return  # a package of modules, which has no names of its own
    assert list(module.__all__) == sorted(module.__all__, key=_isort_order)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [listed for listed in module.__all__ if listed.startswith("_")] == []
    assert [listed for listed in module.__all__ if not hasattr(module, listed)] == []


def _isort_order(name):
    """Constants, then classes, then the rest, as ruff sorts them."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def test_names_that_other_modules_import_are_in_all():
    missing = []
    for user in MODULES:
        for module, names in imported(tree_of(user)):
            if not module.startswith("era_cache.") or names is None:
                continue
            public = getattr(importlib.import_module(module), "__all__", [])
            missing += [
                f"{user}: {module}.{name}"
                for name in names
                if name not in public
                and f"{module}.{name}".removeprefix("era_cache.") not in MODULES
            ]
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_public_definitions_are_listed_or_used_inside(name):
    tree = tree_of(name)
    listed = getattr(importlib.import_module(f"era_cache.{name}"), "__all__", [])
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    kinds = ast.ClassDef | ast.FunctionDef
    # A command is reached through its group, by its decorator.
    defined = [n.name for n in tree.body if isinstance(n, kinds) and not _is_command(n)]
    public = {n for n in defined if not n.startswith("_")}
    assert public - set(listed) - used == set()


def _is_command(node):
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_printed_past_click(name):
    source = io.StringIO(path_of(name).read_text(encoding="utf-8"))
    tokens = tokenize.generate_tokens(source.readline)
    assert [t.start for t in tokens if t.type == tokenize.NAME and t.string == "print"] == []
