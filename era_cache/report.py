"""Show one evaluation result to people: as text, Markdown, CSV or one self-contained HTML page.

In comes the plain dict that an evaluation stores as JSON (format "era-evaluation", version 1);
out goes a string. All its names are untrusted: they are cleaned once, when the dict is read, and
escaped for the target by each renderer. Text, Markdown and HTML walk the same list of blocks, and
these and the CSV take their numbers from the same records, so that the formats cannot disagree.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import itertools
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from era_cache.errors import FormatError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["render_csv", "render_html", "render_markdown", "render_text"]

FORMAT, VERSION = "era-evaluation", 1
BASELINE = "small"
TEXT_WIDTH = 100
MISSING = "-"
MARKS_LEGEND = (
    f"Brackets: 95 % interval. Against {BASELINE}: * p < 0.05, ** p < 0.01, *** p < 0.001, "
    "after Holm's correction where it was made. 1 point = 0.01."
)

# --- what is read from the dict ---------------------------------------------------------------


class Estimate(NamedTuple):
    """A mean with its 95 % interval and, where compared, its difference from the baseline."""

    mean: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None

    @property
    def p_shown(self) -> float | None:
        """The p value that marks and sentences go by: the corrected one where there is one."""
        return self.p if self.p_holm is None else self.p_holm


class Candidate(NamedTuple):
    """A way to serve the queries and, for each measure, its estimate on the test queries."""

    name: str
    kind: str
    validation: float | None
    estimates: dict[str, Estimate]


class CurvePoint(NamedTuple):
    """The primary measure of the candidates, by name, fitted on a share of the labels."""

    labels: float
    train: int
    estimates: dict[str, Estimate]


Pairs = tuple[tuple[str, str], ...]


class Report(NamedTuple):
    """The whole result, checked, with clean texts."""

    collection: str
    test_queries: int
    primary: str
    measures: tuple[str, ...]
    chosen: str
    choice_reason: str
    candidates: tuple[Candidate, ...]
    curve: tuple[CurvePoint, ...]
    costs: Pairs
    setup: Pairs
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    environment: Pairs


def _printable(value: object) -> str:
    # Terminal escapes, bidirectional controls and lone surrogates must not reach any output.
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value))


def _clean(value: object) -> str:
    return _printable(" ".join(str(value).split()))


def _number(value: object) -> float:
    # The bound also refuses NaN, infinities and whole numbers too large for a float.
    if not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ValueError(f"{_clean(value)[:40]!r} is not a finite number")
    return float(value)


def _optional(record: Mapping[str, Any], key: str) -> float | None:
    return None if record.get(key) is None else _number(record[key])


def _read_estimate(record: Mapping[str, Any]) -> Estimate:
    mean, low, high = (_number(record[key]) for key in ("mean", "low", "high"))
    return Estimate(mean, low, high, *(_optional(record, key) for key in Estimate._fields[3:]))


def _read_estimates(records: Mapping[str, Any]) -> dict[str, Estimate]:
    return {_clean(name): _read_estimate(record) for name, record in records.items()}


def _read_setup(result: Mapping[str, Any]) -> Pairs:
    collection, split, encoders = (result[key] for key in ("collection", "split", "encoders"))
    counts = {
        "documents": collection["documents"],
        "queries": collection["queries"],
        "training queries": split["train"],
        "validation queries": split["validation"],
        "test queries": split["test"],
    }
    return (
        ("collection", _clean(collection["name"])),
        ("collection version", _clean(collection["version"])),
        ("domain", _clean(collection["domain"])),
        *((name, f"{int(_number(count)):,}") for name, count in counts.items()),
        ("labels used for training", _percent(_number(split["labels"]))),
        ("seed of the split", _clean(split["seed"])),
        ("query encoder", _clean(encoders["query"])),
        ("document encoder", _clean(encoders["document"])),
    )


def _read_fields(result: Mapping[str, Any]) -> Report:
    measures = tuple(_clean(measure) for measure in result["measures"])
    candidates = []
    for record in result["candidates"]:
        estimates = _read_estimates(record["measures"])
        by_measure = {measure: estimates[measure] for measure in measures}
        name, kind = _clean(record["name"]), _clean(record["kind"])
        candidates.append(Candidate(name, kind, _optional(record, "validation"), by_measure))
    primary, chosen = _clean(result["primary"]), _clean(result["chosen"])
    if primary not in measures:
        raise ValueError(f"the primary measure {primary!r} is not among the measures")
    if [candidate.name for candidate in candidates].count(chosen) != 1:
        raise ValueError(f"the chosen {chosen!r} is not exactly one of the candidates")
    curve = (
        CurvePoint(
            _number(point["labels"]),
            int(_number(point["train"])),
            _read_estimates(point["candidates"]),
        )
        for point in result.get("curve") or ()
    )
    return Report(
        collection=_clean(result["collection"]["name"]),
        test_queries=int(_number(result["split"]["test"])),
        primary=primary,
        measures=measures,
        chosen=chosen,
        choice_reason=_clean(result["choice_reason"]),
        candidates=tuple(candidates),
        curve=tuple(sorted(curve, key=lambda point: point.labels)),
        costs=tuple((_clean(c["what"]), _clean(c["value"])) for c in result.get("costs") or ()),
        setup=_read_setup(result),
        # Line breaks and runs of spaces mean something in a command, so they stay.
        commands=tuple(
            "\n".join(_printable(line) for line in str(command).splitlines())
            for command in result.get("commands") or ()
        ),
        notes=tuple(_clean(note) for note in result.get("notes") or ()),
        environment=tuple(
            (_clean(k), _clean(v)) for k, v in (result.get("environment") or {}).items()
        ),
    )


def _read(result: Mapping[str, Any]) -> Report:
    found = (result.get("format"), result.get("version")) if isinstance(result, Mapping) else None
    if found != (FORMAT, VERSION):
        raise FormatError(
            f"Evaluation result: expected format {FORMAT!r}, version {VERSION}, but found "
            f"{_clean(found)[:80]}. Give a JSON file written by era-eval, or update era-cache if "
            "the file is newer."
        )
    try:
        return _read_fields(result)
    except KeyError as error:
        problem = f"the field {_clean(error)} is missing"
    except (AttributeError, TypeError, ValueError) as error:
        problem = _clean(error)
    raise FormatError(f"Evaluation result is damaged: {problem}. Write it again with era-eval.")


# --- the words and numbers that every format shows --------------------------------------------


class Cell(NamedTuple):
    """A shown value, what stands smaller beside it, the number it sorts by, and its marks."""

    text: str
    detail: str = ""
    key: float | None = None
    stars: str = ""
    best: bool = False


class Table(NamedTuple):
    """Rows under one head; the first column names the row.

    ``numeric`` tables can be sorted, ``marked`` ones carry marks to explain, and ``chart`` names
    the drawing of the same values in HTML.
    """

    title: str
    caption: str
    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: bool = True
    marked: bool = False
    chart: str = ""


class Listing(NamedTuple):
    """Sentences, or commands to type."""

    title: str
    items: tuple[str, ...]
    code: bool = False


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    return MISSING if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _p(value: float | None) -> str:
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _stars(p: float | None) -> str:
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def _mark_best(column: Sequence[Cell]) -> list[Cell]:
    # Compared as shown: two values that print alike are both the best.
    keys = [None if cell.key is None else round(cell.key, 3) for cell in column]
    best = max((key for key in keys if key is not None), default=None)
    return [
        cell._replace(best=key is not None and key == best)
        for cell, key in zip(column, keys, strict=True)
    ]


def _estimate_cell(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(MISSING)
    interval = _interval(estimate.low, estimate.high)
    return Cell(f"{estimate.mean:.3f}", interval, estimate.mean, _stars(estimate.p_shown))


def _candidate_table(report: Report) -> Table:
    validation = [
        Cell(MISSING) if c.validation is None else Cell(f"{c.validation:.3f}", key=c.validation)
        for c in report.candidates
    ]
    columns = [[Cell(candidate.name) for candidate in report.candidates], _mark_best(validation)]
    for measure in report.measures:
        cells = [_estimate_cell(candidate.estimates[measure]) for candidate in report.candidates]
        columns.append(_mark_best(cells))
    return Table(
        "Candidates",
        f"Means over {report.test_queries:,} test queries; validation is {report.primary} on the "
        "validation queries",
        (Cell("candidate"), Cell("validation"), *(Cell(measure) for measure in report.measures)),
        tuple(zip(*columns, strict=True)),
        marked=True,
    )


def _difference_table(report: Report) -> Table:
    rows = []
    for candidate in report.candidates:
        estimate = candidate.estimates[report.primary]
        if candidate.name == BASELINE or estimate.difference is None:
            continue
        interval = _interval(estimate.difference_low, estimate.difference_high, "+.3f")
        difference, stars = f"{estimate.difference:+.3f}", _stars(estimate.p_shown)
        rows.append(
            (
                Cell(candidate.name),
                Cell(difference, interval, estimate.difference, stars),
                Cell(_p(estimate.p), key=estimate.p),
                Cell(_p(estimate.p_holm), key=estimate.p_holm),
            )
        )
    head = (Cell("candidate"), Cell("difference"), Cell("p"), Cell("p (Holm)"))
    caption = f"{report.primary} of each candidate minus that of {BASELINE}, on the test queries"
    return Table(f"Differences from {BASELINE}", caption, head, tuple(rows), chart="differences")


def _curve_names(report: Report) -> list[str]:
    return list(dict.fromkeys(name for point in report.curve for name in point.estimates))


def _curve_table(report: Report) -> Table:
    head = [Cell(_percent(p.labels), f"{p.train:,} queries", p.labels) for p in report.curve]
    rows = (
        (Cell(name), *(_estimate_cell(point.estimates.get(name)) for point in report.curve))
        for name in _curve_names(report)
    )
    caption = f"{report.primary} on the test queries, by share of the labels used for training"
    head = [Cell("candidate"), *head]
    return Table("Label efficiency", caption, tuple(head), tuple(rows), chart="curve")


def _pair_table(title: str, caption: str, head: tuple[str, str], pairs: Pairs) -> Table:
    rows = tuple((Cell(name), Cell(value)) for name, value in pairs)
    return Table(title, caption, (Cell(head[0]), Cell(head[1])), rows, numeric=False)


def _blocks(report: Report) -> list[Table | Listing]:
    """List what every format shows, in order, without the blocks that have nothing to show."""
    kinds = tuple((candidate.name, candidate.kind) for candidate in report.candidates)
    tables = [
        _candidate_table(report),
        _pair_table("What they are", "The candidates in words", ("candidate", "meaning"), kinds),
        _curve_table(report),
        _difference_table(report),
        _pair_table("Costs", "Time and space", ("what", "value"), report.costs),
        _pair_table("Set-up", "Data, split and encoders", ("what", "value"), report.setup),
    ]
    environment = _pair_table(
        "Environment", "Versions used", ("software", "version"), report.environment
    )
    return [
        *(table for table in tables if table.rows),
        *([Listing("Commands", report.commands, code=True)] if report.commands else []),
        *([Listing("Notes", report.notes)] if report.notes else []),
        *([environment] if environment.rows else []),
    ]


def _summary(report: Report) -> str:
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    estimate = chosen.estimates[report.primary]
    sentence = (
        f"{chosen.name} reaches {report.primary} {estimate.mean:.3f} "
        f"{_interval(estimate.low, estimate.high)} on {report.test_queries:,} test queries"
    )
    if chosen.name == BASELINE or estimate.difference is None:
        return f"{sentence}."
    points, p = 100 * estimate.difference, estimate.p_shown
    side = "over" if points >= 0 else "against"
    certainty = "" if p is None else f" (p {_p(p)})" if p < 0.001 else f" (p = {_p(p)})"
    doubt = "" if p is None or p < 0.05 else ", not a significant difference"
    return f"{sentence}: {points:+.1f} points {side} {BASELINE}{certainty}{doubt}."


# --- CSV, text, Markdown ----------------------------------------------------------------------


def render_csv(result: Mapping[str, Any]) -> str:
    """Render the candidates as CSV, one line for each candidate and measure.

    Numbers have full precision; an empty field is a missing value. The curve is left to the JSON.

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        CSV with a head line, and lines that end in a line feed.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = _read(result)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("candidate", "kind", "chosen", "validation", "measure", *Estimate._fields))
    for candidate in report.candidates:
        chosen = "yes" if candidate.name == report.chosen else "no"
        start = (_csv_text(candidate.name), _csv_text(candidate.kind), chosen, candidate.validation)
        for measure, estimate in candidate.estimates.items():
            writer.writerow((*start, _csv_text(measure), *estimate))
    return stream.getvalue()


def _csv_text(text: str) -> str:
    # A spreadsheet takes such a text for a formula; the apostrophe makes it a text again.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def render_text(result: Mapping[str, Any]) -> str:
    """Render a result for the terminal: aligned tables, 100 columns where the names allow it.

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        Plain text that ends in a line feed. Tables that are too wide continue below themselves.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = _read(result)
    parts = [textwrap.fill(f"{_summary(report)} {report.choice_reason}", TEXT_WIDTH)]
    for block in _blocks(report):
        if isinstance(block, Table):
            lines = [block.caption, "", *_text_table(block, report.chosen)]
            if block.marked:
                legend = f"> chosen. ^ best of its column. {MARKS_LEGEND}"
                lines += ["", textwrap.fill(legend, TEXT_WIDTH)]
        elif block.code:
            lines = [f"  {line}" for item in block.items for line in item.splitlines()]
        else:
            hang = textwrap.TextWrapper(TEXT_WIDTH, subsequent_indent="  ")
            lines = [hang.fill(f"- {item}") for item in block.items]
        parts.append("\n".join([block.title.upper(), *lines]))
    return "\n\n".join(parts) + "\n"


def _text_table(table: Table, chosen: str) -> list[str]:
    def lines_of(row: Sequence[Cell], *, body: bool) -> list[list[str]]:
        marker = "> " if body and table.numeric and row[0].text == chosen else "  "
        first = [f"{marker}{row[0].text}"]
        # Where there is an interval below, there is room to keep the digits aligned.
        others = (
            [("^" * c.best) + c.text + c.stars.ljust(3 if body and c.detail else 0), c.detail]
            for c in row[1:]
        )
        return [first, *([line for line in lines if line] for lines in others)]

    rows = [lines_of(table.head, body=False)] + [lines_of(row, body=True) for row in table.rows]
    if not table.numeric:
        room = max(30, TEXT_WIDTH - 2 - max(len(row[0][0]) for row in rows))
        rows = [[row[0], textwrap.wrap(row[1][0], room) or [""]] for row in rows]
    widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(table.head))]
    out: list[str] = []
    for columns in _fitting_columns(widths):
        out += [""] * bool(out)
        for row in rows:
            for i in range(max(len(row[column]) for column in columns)):
                texts = [row[column][i] if i < len(row[column]) else "" for column in columns]
                padded = [
                    text.rjust(widths[column])
                    if table.numeric and column
                    else text.ljust(widths[column])
                    for column, text in zip(columns, texts, strict=True)
                ]
                out.append("  ".join(padded).rstrip())
    return out


def _fitting_columns(widths: Sequence[int]) -> list[list[int]]:
    """Split columns into groups that fit the terminal, each with the first column in front."""
    groups = [[0]]
    for column in range(1, len(widths)):
        used = sum(widths[i] + 2 for i in groups[-1])
        if len(groups[-1]) > 1 and used + widths[column] > TEXT_WIDTH:
            groups.append([0])
        groups[-1].append(column)
    return groups


def render_markdown(result: Mapping[str, Any]) -> str:
    """Render a result as Markdown with pipe tables (GitHub, CommonMark with tables).

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        Markdown that ends in a line feed.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = _read(result)
    parts = [
        f"# Evaluation on {_markdown(report.collection)}",
        f"**{_markdown(_summary(report))}** {_markdown(report.choice_reason)}",
    ]
    for block in _blocks(report):
        parts.append(f"## {_markdown(block.title)}")
        if isinstance(block, Table):
            parts += [f"{_markdown(block.caption)}.", _markdown_table(block, report.chosen)]
            if block.marked:
                parts.append(f"Bold: best of its column. {_markdown(MARKS_LEGEND)}")
        elif block.code:
            text = "\n".join(block.items)
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            parts.append(f"{fence}sh\n{text}\n{fence}")
        else:
            parts.append("\n".join(f"- {_markdown(item)}" for item in block.items))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))


def _markdown_table(table: Table, chosen: str) -> str:
    def line(row: Sequence[Cell], *, body: bool) -> str:
        texts = []
        for cell in row:
            text = f"**{_markdown(cell.text)}**" if cell.best else _markdown(cell.text)
            texts.append(f"{text}{_markdown(cell.stars)} {_markdown(cell.detail)}".rstrip())
        if body and table.numeric and row[0].text == chosen:
            texts[0] += " (chosen)"
        return f"| {' | '.join(texts)} |"

    rule = "|".join(["---", *(["---:" if table.numeric else "---"] * (len(table.head) - 1))])
    body = [line(row, body=True) for row in table.rows]
    return "\n".join([line(table.head, body=False), f"|{rule}|", *body])


# --- HTML -------------------------------------------------------------------------------------

_CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--page:#fff;--line:#d5dae0;
--band:#f3f6f9;--pick:#e3f0fb;--s0:#0072b2;--s1:#c44e00;--s2:#007a5a;--s3:#a8477f;--s4:#8f6400;--s5:#5b5bd6}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a0a9b4;--page:#14181d;
--line:#3a434d;--band:#1d2329;--pick:#1b3247;--s0:#56b4e9;--s1:#ff8c42;--s2:#2fc79a;--s3:#e69ac3;--s4:#f0c045;
--s5:#a5a5ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}
h2{font-size:1.15rem;margin:2.5rem 0 .5rem}
.lead{text-wrap:pretty;font-size:1.2rem;line-height:1.45;margin:0 0 .5rem}
.soft,caption,.detail,figcaption{color:var(--soft)}
.scroll{overflow-x:auto;margin:.5rem 0}
.scroll:focus-visible,button:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;padding-bottom:.4rem;font-size:.9rem}
caption span{display:block;max-width:calc(100vw - 2rem)}
th,td{padding:.4rem .8rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--line);vertical-align:bottom;font-weight:600}
tbody th{font-weight:400}
.numeric tbody th{white-space:nowrap}
.numeric th:first-child{position:sticky;left:0;background:var(--page)}
.numeric tr.chosen th{background:var(--pick)}
.numeric td,.numeric thead th+th{text-align:right;white-space:nowrap}
.detail{display:block;font-size:.82rem;font-weight:400}
.stars{display:inline-block;width:1.7em;text-align:left}
.best{font-weight:700;text-decoration:underline;text-underline-offset:.2em}
tr.chosen>*{background:var(--pick)}
tr.chosen th{font-weight:700}
.badge{margin-left:.5rem;padding:.05rem .45rem;border:1px solid currentColor;border-radius:1rem;
font-size:.72rem;font-weight:600}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:inherit;white-space:nowrap}
th button::after{content:"";display:inline-block;width:1em;text-align:right}
th[aria-sort=ascending] button::after{content:"\\2191"}
th[aria-sort=descending] button::after{content:"\\2193"}
figure{margin:.5rem 0 1rem}
figure svg{display:block;width:100%;min-width:30rem;max-width:48rem;height:auto}
svg text{font-family:inherit!important}
figcaption{font-size:.9rem}
pre{background:var(--band);padding:.8rem 1rem;overflow-x:auto;margin:.5rem 0;border-radius:.3rem;
font-size:.88rem;overflow-wrap:normal}
@media (max-width:40rem){th,td{padding:.35rem .45rem}table{font-size:.93rem}
.badge{display:block;width:fit-content;margin:0}}
@media print{body{max-width:none;padding:0;font-size:10pt}.scroll,pre{overflow:visible}
pre{white-space:pre-wrap}tr,figure{break-inside:avoid}h2{break-after:avoid}
figure svg{min-width:0;max-width:16cm}th,td{padding:.2rem .4rem}}
"""

# Sorts a column by the number in data-key, else by the text; missing values stay at the end.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = head.cellIndex, old = head.getAttribute("aria-sort");
    const up = old ? old === "descending" : column === 0;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.key;
    const text = (row) => row.cells[column].textContent;
    const compare = (a, b) => {
      if (key(a) === undefined && key(b) === undefined)
        return (up ? 1 : -1) * text(a).localeCompare(text(b));
      if (key(a) === undefined || key(b) === undefined) return key(a) === undefined ? 1 : -1;
      return (up ? 1 : -1) * (key(a) - key(b));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""


def render_html(result: Mapping[str, Any]) -> str:
    """Render a result as one HTML page that needs no other file and no network.

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        An HTML document with inline style, script and SVG; the same input gives the same text.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = _read(result)
    title = html.escape(f"Evaluation on {report.collection}")
    script_hash = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = [_html_section(block, report) for block in _blocks(report)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title>",
            f"<style>{_CSS}</style>",
            "</head>",
            "<body>",
            f"<header><h1>{title}</h1>",
            f'<p class="lead">{html.escape(_summary(report))}</p>',
            f'<p class="soft">{html.escape(report.choice_reason)}</p></header>',
            "<main>",
            *sections,
            "</main>",
            f"<script>{_SCRIPT}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _html_section(block: Table | Listing, report: Report) -> str:
    parts = [f"<section>\n<h2>{html.escape(block.title)}</h2>"]
    if isinstance(block, Listing):
        tag = "<pre>{}</pre>" if block.code else "<ul>{}</ul>"
        form = "{}\n" if block.code else "<li>{}</li>"
        parts.append(tag.format("".join(form.format(html.escape(item)) for item in block.items)))
    else:
        if block.chart:
            parts.append(_html_figure(block, report))
        parts.append(_html_table(block, report.chosen))
        if block.marked:
            legend = f"Underlined: best of its column. {MARKS_LEGEND}"
            parts.append(f'<p class="soft">{html.escape(legend)}</p>')
    return "\n".join([*parts, "</section>"])


def _html_table(table: Table, chosen: str) -> str:
    def cell_of(cell: Cell, tag: str, attributes: str, badge: str = "") -> str:
        text = html.escape(cell.text)
        if cell.best:
            text = f'<span class="best">{text}</span>'
        if tag == "th" and "col" in attributes and table.numeric:
            text = f'<button type="button">{text}</button>'
        detail = f' <span class="detail">{html.escape(cell.detail)}</span>' if cell.detail else ""
        if cell.detail and "col" not in attributes and table.numeric:
            text += f'<span class="stars">{cell.stars}</span>'
        key = "" if cell.key is None or "col" in attributes else f' data-key="{cell.key!r}"'
        return f"<{tag}{attributes}{key}>{text}{badge}{detail}</{tag}>"

    head = "".join(cell_of(cell, "th", ' scope="col"') for cell in table.head)
    rows = []
    for first, *others in table.rows:
        is_chosen = table.numeric and first.text == chosen
        badge = ' <span class="badge">chosen</span>' if is_chosen else ""
        cells = [cell_of(first, "th", ' scope="row"', badge)]
        cells += [cell_of(cell, "td", "") for cell in others]
        opening = '<tr class="chosen">' if is_chosen else "<tr>"
        rows.append(f"{opening}{''.join(cells)}</tr>")
    sorts = ' class="numeric"' if table.numeric else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(table.title)}">\n'
        f"<table{sorts}>\n"
        f"<caption><span>{html.escape(table.caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>\n</div>"
    )


# --- charts -----------------------------------------------------------------------------------

# Drawn in these, then replaced by style-sheet colours that suit light and dark pages. Text and
# axes get _INK, hollow markers _PAGE, which no palette uses. The palette follows Okabe and Ito
# (2008), darkened for a white page.
_INK, _PAGE = "#010203", "#fcfdfe"
_PALETTE = ("#0072b2", "#c44e00", "#007a5a", "#a8477f", "#8f6400", "#5b5bd6")
_MARKERS = ("o", "s", "^", "D", "v", "P")


def _look(name: str, names: Sequence[str]) -> dict[str, str]:
    """Give a candidate its colour, marker and line; the baseline is neutral and dashed."""
    if name == BASELINE:
        return {"color": _INK, "marker": "o", "linestyle": "--"}
    i = [other for other in names if other != BASELINE].index(name)
    # The second time round the palette, lines are dotted.
    line = "-" if i < len(_PALETTE) else ":"
    return {"color": _PALETTE[i % 6], "marker": _MARKERS[i % 6], "linestyle": line}


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Move labels apart to at least ``gap``, in their order, around their common centre."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = list(values)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    shift = (sum(placed) - sum(values)) / max(1, len(values))
    return [value - shift for value in placed]


def _draw_curve(axes: Axes, report: Report) -> None:
    names = _curve_names(report)
    order = [*(c.name for c in report.candidates), *names]
    ends = []
    for name in names:
        points = [p for p in report.curve if name in p.estimates]
        shares = [p.labels for p in points]
        estimates = [p.estimates[name] for p in points]
        look = _look(name, list(dict.fromkeys(order)))
        lows, highs = [e.low for e in estimates], [e.high for e in estimates]
        axes.fill_between(shares, lows, highs, color=look["color"], alpha=0.13, linewidth=0)
        if len(points) == 1:  # A band needs two points; one gets a line.
            axes.vlines(shares, lows, highs, color=look["color"], linewidth=2.5)
        axes.plot(shares, [e.mean for e in estimates], **look)  # type: ignore[arg-type]
        ends.append((name, estimates[-1].mean, look["color"]))
    shares = [point.labels for point in report.curve]
    if min(shares) > 0:
        axes.set_xscale("log")
    ticks = [f"{_percent(point.labels)}\n{point.train:,}" for point in report.curve]
    axes.set_xticks(shares, labels=ticks)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labels used for training, and number of training queries")
    axes.set_ylabel(report.primary, parse_math=False)
    low, high = axes.get_ylim()
    heights = _spread([mean for _, mean, _ in ends], 0.065 * (high - low))
    for (name, _, color), height in zip(ends, heights, strict=True):
        axes.text(
            1.015,
            height,
            _short(name),
            color=color,
            va="center",
            parse_math=False,
            transform=axes.get_yaxis_transform(),
        )


def _draw_differences(axes: Axes, report: Report) -> None:
    names = [candidate.name for candidate in report.candidates]
    shown = []
    for candidate in report.candidates:
        estimate = candidate.estimates[report.primary]
        if candidate.name != BASELINE and estimate.difference is not None:
            shown.append((candidate.name, estimate))
    axes.axvline(0, color=_INK, linewidth=1, linestyle="--")
    for row, (name, estimate) in enumerate(shown):
        look = _look(name, names)
        if estimate.difference_low is not None and estimate.difference_high is not None:
            interval = [estimate.difference_low, estimate.difference_high]
            axes.plot(interval, [row, row], color=look["color"], linewidth=2.5)
        fill = look["color"] if _stars(estimate.p_shown) else _PAGE
        axes.plot(
            [estimate.difference or 0.0],
            [row],
            marker=look["marker"],
            color=look["color"],
            markerfacecolor=fill,
            markersize=9,
        )
    axes.set_yticks(range(len(shown)), labels=[_short(name) for name, _ in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"difference in {report.primary} from {BASELINE}", parse_math=False)


_CHARTS: dict[str, tuple[Callable[[Axes, Report], None], str]] = {
    "curve": (_draw_curve, "Bands are 95 % intervals over the test queries."),
    "differences": (
        _draw_differences,
        "Lines are 95 % intervals. Filled: p < 0.05; hollow: not significant.",
    ),
}


def _html_figure(table: Table, report: Report) -> str:
    draw, note = _CHARTS[table.chart]
    column = len(table.head) - 1 if table.chart == "curve" else 1
    values = ", ".join(f"{row[0].text} {row[column].text}" for row in table.rows)
    title = f"{table.caption}. {table.head[column].text}: {values}."
    return (
        '<figure><div class="scroll" role="region" tabindex="0" '
        f'aria-label="Chart: {html.escape(table.title)}">{_svg(report, draw, table.chart, title)}'
        f"</div>\n<figcaption>{html.escape(note)}</figcaption></figure>"
    )


def _svg(report: Report, draw: Callable[[Axes, Report], None], prefix: str, title: str) -> str:
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.markersize": 5,
        "font.size": 10,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    # The page's own fonts draw the text, so that a glyph missing here is no one's concern.
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        height = 1.0 + 0.42 * len(report.candidates) if prefix == "differences" else 3.9
        figure = Figure(figsize=(7.2, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.grid(axis="x" if prefix == "differences" else "y", color=_INK, alpha=0.13)
        axes.set_axisbelow(True)
        draw(axes, report)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _inline_svg(stream.getvalue(), prefix, title)


def _inline_svg(svg: str, prefix: str, title: str) -> str:
    """Make a matplotlib SVG fit to stand inside a page: own ids, page colours, a title."""

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag.group())
        text = text.replace(_INK, "currentColor").replace(_PAGE, "var(--page)")
        for i, color in enumerate(_PALETTE):
            text = text.replace(color, f"var(--s{i})")
        return text

    start = svg.index("<svg")
    # Only tags are rewritten: in texts, which come from the result, "<" is always escaped.
    body = re.sub(r"<[^<>]*>", adapt, svg[start:])
    opening, rest = body.split(">", 1)
    label = f'<title id="{prefix}-title">{html.escape(title)}</title>'
    return f'{opening} role="img" aria-labelledby="{prefix}-title">\n{label}{rest}'
