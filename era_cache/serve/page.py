"""The search page: one constant document, which fetches everything it shows.

Nothing is filled in on the server. What the script shows goes into text nodes only, so that no id
or text can become markup; the policy allows this script and this style and nothing else.
"""

from __future__ import annotations

import base64
import hashlib

from era_cache.serve.page_script import SCRIPT
from era_cache.serve.page_style import CSS

__all__ = ["POLICY", "page"]

_BODY = """
<header><h1>Search <bdi id="collection"></bdi></h1><p class="soft" id="about"></p></header>
<main>
<form id="form" role="search">
<div class="field"><label for="query">Query</label><div class="ask">
<input id="query" type="search" autocomplete="off" spellcheck="false" autofocus>
<button class="main">Search</button><button type="button" id="random">Random judged query</button>
</div></div>
<div class="field" id="instructed" hidden><label for="instruction">Instruction</label>
<input id="instruction" type="text" autocomplete="off" spellcheck="false"></div>
<div class="options">
<fieldset><legend>Compare</legend><span id="candidates"></span></fieldset>
<label>Documents <select id="k"><option>5</option><option selected>10</option><option>20</option>
<option>50</option></select></label>
<label>Query id <input id="id" type="text" autocomplete="off" spellcheck="false"></label>
<label id="wholes" hidden><input id="whole" type="checkbox">Whole texts</label>
</div>
</form>
<p id="status" role="status" aria-live="polite"></p>
<section id="results" aria-label="Results" hidden>
<p id="asked"></p><p class="soft" id="instructions"></p><p class="warn" id="seen"></p>
<div class="columns" id="columns"></div>
<section id="elsewhere" hidden><h2>Relevant, but not in every list above</h2>
<div class="scroll" role="region" aria-label="Relevant documents further down" tabindex="0">
<table><thead></thead><tbody></tbody></table></div></section>
<p class="soft foot" id="foot"></p>
</section>
<noscript><p>This page needs JavaScript.</p></noscript>
</main>
"""


def _hashed(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; script-src {_hashed(SCRIPT)}; style-src {_hashed(CSS)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page() -> bytes:
    """The page, UTF-8."""
    # The empty icon keeps browsers from asking for one.
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<title>ERA Cache search</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{CSS}</style>\n</head>\n<body>{_BODY}<script>{SCRIPT}</script>\n</body>\n</html>\n"
    ).encode()
