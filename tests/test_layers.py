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

# Lower to higher. A module imports only from lower layers, so no import cycle can exist.
LAYERS = [
    ["errors", "types", "config"],
    [
        "hdf5.lookup3",
        "keys",
        "hdf5.messages",
        "label_forms",
        "settings",
        "lbfgs",
        "moments",
        "maps",
        "report.cells",
        "report.records",
    ],
    [
        "files",
        "hdf5.parse",
        "measures",
        "statistics",
        "losses",
        "shapes",
        "bfcl_source",
        "report.parsing",
        "report.script",
        "report.style",
        "transfer.report",
    ],
    [
        "exchange.blocks",
        "text_files",
        "hdf5",
        "layout",
        "search",
        "specs",
        "model_files",
        "exchange.model_width",
        "demo_models",
        "adapters",
        "align",
        "train",
        "bfcl",
        "report.tables",
    ],
    [
        "encoders",
        "exchange.parquet",
        "verify.quarantine",
        "retired",
        "transfer.places",
        "segments",
        "text_columns",
        "run_order",
        "results",
        "approximate",
        "report.candidate_tables",
        "report.collection_tables",
        "report.query_tables",
        "report.rows_html",
        "report.svg",
    ],
    [
        "panels",
        "report.blocks",
        "report.gain_chart",
        "report.long_csv",
        "report.query_charts",
        "per_query",
        "keyindex",
        "exchange.arrays",
        "exchange.row_ids",
        "verify.row_scan",
        "transfer.packs",
        "transfer.remote",
    ],
    ["verify.index_check", "reading", "verify.report"],
    ["verify.scan", "verify.walk", "writer"],
    [
        "collections",
        "trec",
        "align_quality",
        "mining",
        "report.charts",
        "report.latex",
        "report.markdown",
        "report.text",
    ],
    ["beir", "exchange.matching", "store", "splits", "report.page", "run_json"],
    [
        "embed",
        "exchange.exporting",
        "probe",
        "exchange.row_checks",
        "pairs",
        "inventory",
        "compact",
        "differences",
        "transfer.file_checks",
        "runs",
    ],
    [
        "run_comparison",
        "folds",
        "exchange.importing",
        "evaluate",
        "fitted",
        "transfer.plan",
        "verify.folder",
    ],
    ["judging", "tasks", "transfer.run", "verify.encoders"],
    ["crossfit", "transfer", "verify"],
    ["paper", "tables"],
    ["choose"],
    ["sweep", "fitting", "report", "analysis"],
    ["api", "experiments", "workflow", "outputs"],
    ["protocols"],
    ["reproduce"],
    [
        "lookup.answer",
        "lookup.gate",
        "lookup.models",
        "lookup.page_script",
        "lookup.page_style",
        "lookup.source",
        "lookup.texts",
    ],
    ["lookup.page", "lookup.rankings", "lookup.show"],
    ["lookup.engine"],
    ["lookup.server"],
    ["lookup"],
    ["cli.common"],
    [
        "cli.fit_options",
        "cli.search_prompt",
        "cli.store_share",
        "cli.store_trust",
        "cli.store_upkeep",
        "cli.text_options",
    ],
    ["cli.fit_align", "cli.store_import", "cli.store_vectors", "cli.eval_options"],
    [
        "cli.fit_sweep",
        "cli.eval_protocols",
        "cli.eval_report",
        "cli.eval_reproduce",
        "cli.eval_runs",
    ],
    ["cli.embed", "cli.fit", "cli.evaluate", "cli.store", "cli.search"],
]
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}
# Packages that cost time to import, and the only modules that may load them.
MAY_IMPORT = {
    "sentence_transformers": {"encoders", "demo_models"},
    "h5py": {"exchange.arrays", "hdf5"},
    "pyarrow": {"exchange.parquet"},
}
HEAVY = ["torch", "h5py", "numpy", "sentence_transformers", "matplotlib", "pyarrow", "safetensors"]
# Packages whose own file imports nothing.
BARE = ["", "cli", "exchange"]


def module_names():
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name not in BARE:
            names.append(name)
    return names


MODULES = module_names()


def path_of(name):
    folder = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


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


def own_imports(tree):
    """The era_cache modules that a tree imports, without the package's name."""
    for module, names in imported(tree):
        if module == "era_cache":
            # `from era_cache import store` names modules; `import era_cache` none.
            yield from (name for name in names or [] if name in LAYER_OF)
        elif module.startswith("era_cache."):
            yield module.removeprefix("era_cache.")


def test_every_module_has_exactly_one_layer():
    placed = [name for layer in LAYERS for name in layer]
    assert sorted(placed) == sorted(MODULES)


@pytest.mark.parametrize("name", BARE)
def test_bare_packages_import_nothing_of_ours(name):
    assert list(own_imports(tree_of(name))) == []


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_from_lower_layers(name):
    wrong = [
        other for other in own_imports(tree_of(name)) if LAYER_OF[other] >= LAYER_OF.get(name, -1)
    ]
    assert wrong == []


def test_own_imports_are_found_at_any_depth():
    tree = ast.parse(
        "import era_cache\nfrom era_cache import files, __version__\n"
        "def f():\n    if True:\n        from era_cache.store import Store\n"
    )
    assert list(own_imports(tree)) == ["files", "store"]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_package_is_imported_only_where_it_belongs(package):
    users = {
        name
        for name in MODULES
        if any(module.split(".")[0] == package for module, _ in imported(tree_of(name)))
    }
    assert users
    assert users <= MAY_IMPORT[package]


@pytest.mark.parametrize(
    "command",
    ["embed", "fit", "evaluate", "search", "store", "store_import", "store_vectors"],
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
    assert not set(direct) & {"torch", "h5py", "sentence_transformers", "matplotlib", "faiss"}


@pytest.mark.parametrize("name", MODULES)
def test_all_names_exist_and_are_public(name):
    module = importlib.import_module(f"era_cache.{name}")
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
            public = importlib.import_module(module).__all__
            missing += [f"{user}: {module}.{name}" for name in names if name not in public]
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_public_definitions_are_listed_or_used_inside(name):
    tree = tree_of(name)
    listed = importlib.import_module(f"era_cache.{name}").__all__
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
