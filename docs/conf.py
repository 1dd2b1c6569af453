"""How the site is built: ``make docs``. Every warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from era_cache import __version__  # noqa: E402

project = "ERA Cache"
author = "The ERA Cache authors"
release = version = __version__
project_copyright = f"2026, {author}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "commands",
    "error_messages",
    "licences",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ERA Cache"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# No request leaves a reader's browser, and none is made while building.
html_theme_options = {"navigation_with_keys": True}
# Two hyphens begin an option.
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
