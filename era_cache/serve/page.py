"""The search page: one constant document, which fetches everything it shows.

In: the files in ``templates``. Out: the page, and the policy that allows its script and its style
and nothing else. No id or text is filled in here; what the script shows goes into text nodes only,
so that none can become markup.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from era_cache.report.page_files import packaged, policy_hash, render_page

__all__ = ["Page", "search_page"]

_PACKAGE = "era_cache.serve"


class Page(NamedTuple):
    """A document and the content security policy that goes with it."""

    content: bytes
    policy: str


@functools.cache
def search_page() -> Page:
    """The page, UTF-8."""
    from markupsafe import Markup

    style, script = (Markup(packaged(_PACKAGE, f"search.{kind}")) for kind in ("css", "js"))  # noqa: S704 - ours
    content = render_page(_PACKAGE, "search.html", style=style, script=script)
    policy = (
        f"default-src 'none'; script-src {policy_hash(script)}; style-src {policy_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(content.encode(), policy)
