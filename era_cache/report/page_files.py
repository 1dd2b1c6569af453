"""Pages from files of a package: templates, and the style and script that stand in them.

In: the folder ``templates`` of a package. Out: a page whose values are escaped, and the hash by
which its content security policy knows the script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

__all__ = ["packaged", "policy_hash", "render_page"]


@functools.cache
def packaged(package: str, name: str) -> str:
    """The text of a file in a package's ``templates``."""
    return (resources.files(package) / "templates" / name).read_text("utf-8")


def render_page(package: str, name: str, **values: Any) -> str:
    """Fill a template of a package; whatever is not ``markupsafe.Markup`` is escaped."""
    return str(_environment(package).get_template(name).render(values))


def policy_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@functools.cache
def _environment(package: str) -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(functools.partial(packaged, package)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
