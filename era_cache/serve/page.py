"""The search page: one constant document, which fetches everything it shows.

In: the files in ``templates``. Out: the page, and the policy that allows its script and its style
and nothing else. No id or text is filled in here; what the script shows goes into text nodes only,
so that none can become markup.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import NamedTuple

__all__ = ["Page", "search_page"]


class Page(NamedTuple):
    """A document and the content security policy that goes with it."""

    content: bytes
    policy: str


@functools.cache
def search_page() -> Page:
    """The page, UTF-8."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined
    )
    style, script = Markup(_file("search.css")), Markup(_file("search.js"))  # noqa: S704 - ours
    content = environment.get_template("search.html").render(style=style, script=script)
    policy = (
        f"default-src 'none'; script-src {_hashed(script)}; style-src {_hashed(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(content.encode(), policy)


def _file(name: str) -> str:
    return (resources.files("era_cache.serve") / "templates" / name).read_text("utf-8")


def _hashed(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
