r"""Reports as LaTeX: tables with booktabs, to be put into a paper with \input.

In: a ``Report``. Out: a string of ASCII, which every engine reads.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from era_cache.report.blocks import lead_of, sections_of
from era_cache.report.records import Report, cleaned
from era_cache.report.tables import Cell, Listing, Section, Table, sentences_below, word_columns

__all__ = ["latex_text", "render_latex", "render_latex_table"]

_LONG, _WIDE, _MANY = 40, 60, 9
"""Rows of a table that may break over pages, letters that wrap, columns whose heads stand up."""
_ESCAPES = {
    **{char: f"\\{char}" for char in "%&_#{}$"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "{\\char34}",
    "*": "{*}",  # at the start of a row it would belong to the line break before it, too
    "'": "\\textquotesingle{}",
    "`": "\\textasciigrave{}",
    "°": "\\textdegree{}",
    "±": "\\textpm{}",
    "×": "\\texttimes{}",
    "–": "--",
    "—": "---",
    "…": "\\ldots{}",
    "\u00a0": "~",
    # Brackets at the start of a row would be read as an option of the line break before it.
    "[": "{[}",
    "]": "{]}",
}
_HEAD = r"""% Evaluation tables of era-eval. In the preamble, once:
%   \usepackage{booktabs}  % rules
%   \usepackage{longtable} % tables over pages
%   \usepackage{graphicx}  % wide tables are made to fit
%   \usepackage{textcomp}  % signs (part of LaTeX since 2020)
% Signs outside ASCII are written by number: XeLaTeX and LuaLaTeX set them in your font, pdfLaTeX
% shows the number.
\providecommand{\erafit}[1]{\sbox0{#1}%
  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}
\ifx\XeTeXversion\undefined\ifx\directlua\undefined
\providecommand{\erasign}[1]{{\footnotesize[U+#1]}}
\fi\fi
\providecommand{\erasign}[1]{\symbol{"#1}}
"""


def latex_text(text: str) -> str:
    """Escape a text for LaTeX; accents become commands, other signs outside ASCII numbers."""
    return "".join(_ESCAPES.get(char) or _ascii(char) for char in text)


_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030a": "r",
    "\u0327": "c",
    "\u030c": "v",
}


def _ascii(char: str) -> str:
    if char.isascii():
        return char
    base, *marks = list(unicodedata.normalize("NFD", char))
    if len(marks) == 1 and base.isascii() and base.isalpha() and marks[0] in _ACCENTS:
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"\\erasign{{{ord(char):04X}}}"


def render_latex(report: Report) -> str:
    r"""Render a record as LaTeX tables with booktabs: best in bold, stars, intervals small.

    Args:
        report: what an analysis found.

    Returns:
        A fragment for \input, in ASCII; its head says which packages it needs.

    Raises:
        FormatError: its texts or numbers are damaged.
    """
    report = cleaned(report)
    parts = [_HEAD, *(latex_text(sentence) for sentence in lead_of(report))]
    for section in sections_of(report):
        parts += _section(section, report.chosen)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def render_latex_table(report: Report) -> str:
    r"""Render the table of candidates alone, for the paper: one ``table`` to \input.

    Arguments and errors are those of ``render_latex``.
    """
    report = cleaned(report)
    blocks = (block for section in sections_of(report) for block in section.blocks)
    table = next(one for one in blocks if isinstance(one, Table) and one.name == "candidates")
    return f"{_HEAD.strip()}\n\n{_table(table, report.chosen)}\n"


def _section(section: Section, chosen: str) -> list[str]:
    parts = []
    for block in section.blocks:
        if isinstance(block, Listing):
            form = "\\item \\texttt{%s}" if block.code else "\\item %s"
            lines = (
                form % latex_text(item).replace("\n", "\\\\\n").replace("--", "-{}-")
                for item in block.items
            )
            listed = "\n".join(lines)
            title = f"\\paragraph{{{latex_text(block.title)}}}"
            parts.append(f"{title}\n\\begin{{itemize}}\n{listed}\n\\end{{itemize}}")
        else:
            parts.append(_table(block, chosen))
    return parts


def _cell(cell: Cell, *, number: bool, room: int, below: bool) -> str:
    text = _number(cell.text) if number else latex_text(cell.text)
    if cell.best:
        text = f"\\textbf{{{text}}}"
    if room:
        stars = cell.stars.replace("°", _ESCAPES["°"])
        # Every cell of the column keeps the room of the stars, so that the digits stay aligned.
        text += f"\\makebox[{0.45 * room:.2f}em][l]{{\\textsuperscript{{{stars}}}}}"
    if not cell.detail:
        return text
    detail = f"{{\\scriptsize {_number(cell.detail)}}}"
    return f"\\shortstack{{{text}\\\\{detail}}}" if below else f"{text} {detail}"


def _number(text: str) -> str:
    return latex_text(text).replace("-", "$-$").replace("+", "$+$")


def _row(
    row: Sequence[Cell],
    words: Sequence[bool],
    rooms: Sequence[int],
    *,
    below: bool = False,
    bold: bool = False,
) -> str:
    cells = [
        _cell(cell, number=not word, room=room, below=below)
        for cell, word, room in zip(row, words, rooms, strict=True)
    ]
    if bold:
        cells[0] = f"\\textbf{{{cells[0]}}}"
    return f"{' & '.join(cells)} \\\\"


def _table(table: Table, chosen: str) -> str:
    words = [True, *word_columns(table)[1:]] if table.sortable else [True] * len(table.head)
    kinds = "".join("l" if word else "r" for word in words)
    if not table.sortable and any(len(row[1].text) > _WIDE for row in table.rows):
        kinds = "lp{0.62\\linewidth}"
    rooms = [max(len(row[i].stars) for row in table.all_rows) for i in range(len(table.head))]
    heat = table.heat > 0
    head = _row(table.head, [True] * len(table.head), [0] * len(table.head))
    if heat and len(table.head) > _MANY:
        heads = [latex_text(table.head[0].text)]
        heads += [f"\\rotatebox{{90}}{{{latex_text(cell.text)}}}" for cell in table.head[1:]]
        head = f"{' & '.join(heads)} \\\\"
    body = [
        _row(row, words, rooms, below=heat, bold=table.sortable and row[0].text == chosen)
        for row in table.rows
    ]
    if table.total:
        body += ["\\midrule", _row(table.total, words, rooms)]
    sentences = (table.title, table.caption, *sentences_below(table, "Bold"))
    words_of = " ".join(f"{text.rstrip('.')}." for text in sentences if text)
    caption = f"\\caption{{{latex_text(words_of)}}}"
    label = f"\\label{{tab:era-{table.name}}}"
    if len(body) > _LONG:
        return "\n".join(
            [
                "{\\scriptsize\\setlength{\\tabcolsep}{3pt}",
                f"\\begin{{longtable}}{{{kinds}}}",
                f"{caption}{label}\\\\",
                f"\\toprule\n{head}\n\\midrule\n\\endhead",
                *body,
                "\\bottomrule\n\\end{longtable}}",
            ]
        )
    inside = "\n".join(
        [
            f"\\begin{{tabular}}{{{kinds}}}",
            f"\\toprule\n{head}\n\\midrule",
            *body,
            "\\bottomrule\n\\end{tabular}",
        ]
    )
    return "\n".join(
        [
            "\\begin{table}[htbp]\n\\centering\\small",
            f"{caption}{label}\\vspace{{3pt}}",
            f"\\erafit{{{inside}}}",
            "\\end{table}",
        ]
    )
