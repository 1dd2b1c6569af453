"""The report as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import pytest
from evaluation_records import HOSTILE, hostile_record, large_record, plain, small_record
from report_pages import read, render_csv, render_latex, render_markdown, render_text

from era_cache.report import render_latex_table
from era_cache.report.latex import latex_text
from era_cache.report.records import Estimate


@pytest.fixture
def record():
    return small_record()


# For the terminal


def test_text_is_aligned_and_fits_the_terminal(record):
    text = render_text(record)
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("  candidate  held-out"))
    intervals = [line for line in lines if line.strip().startswith("[0.512, 0.548]  [0.763")]
    assert len(intervals) == 1
    assert len(head) == len(intervals[0])


@pytest.mark.parametrize("count", [2, 20])
def test_text_of_many_collections_fits_the_terminal(count):
    assert max(map(len, render_text(large_record(count, 30)).splitlines())) <= 100


def test_text_tables_too_wide_continue_below_themselves(record):
    record["measures"] = [f"nDCG@{k}" for k in range(10, 20)]
    for candidate in record["candidates"]:
        candidate["measures"] = dict.fromkeys(record["measures"], plain(0.5))
    text = render_text(record)
    assert max(map(len, text.splitlines())) <= 100
    # 10 + 12 columns, then 16 for each measure: 4 fit the first part, 5 the second, 1 is left.
    parts = text[text.index("CANDIDATES") : text.index("> chosen.")]
    heads = [line.split() for line in parts.splitlines() if line.startswith("  candidate")]
    assert [len(head) for head in heads] == [2 + 4, 1 + 5, 1 + 1]
    assert all(measure in text for measure in record["measures"])


def test_text_marks_the_chosen_row_and_the_best_of_each_column(record):
    text = render_text(record)
    candidates = text[text.index("CANDIDATES") : text.index("> chosen.")]
    marked = [line.split()[1] for line in candidates.splitlines() if line.startswith("> ")]
    assert marked == ["era-dual"]
    assert re.findall(r"\^(\S+)", candidates) == ["0.611", "0.607***", "0.857***"]


def test_brief_text_has_the_curve_the_domains_and_the_candidates_last():
    text = render_text(large_record(10, 30), brief=True)
    titles = [line for line in text.splitlines() if line.isupper() and not line.startswith(" ")]
    assert titles == ["LABEL EFFICIENCY", "MEANS BY DOMAIN", "CANDIDATES"]
    assert text.startswith("The shipped adapter reaches nDCG@10")
    small = render_text(small_record(), brief=True)
    titles = [line for line in small.splitlines() if line.isupper() and not line.startswith(" ")]
    assert titles == ["LABEL EFFICIENCY", "CANDIDATES"]


def test_long_texts_of_queries_wrap_in_their_column(record):
    record["queries"]["wins"][0]["text"] = "word " * 200
    assert max(map(len, render_text(record).splitlines())) <= 100


# Markdown


def test_markdown_cells_and_fences_hold_against_their_own_marks(record):
    record["candidates"][1]["name"] = "a|b`c*d$"
    record["commands"] = ["echo ```` done"]
    markdown = render_markdown(record)
    assert "| a\\|b\\`c\\*d\\$ |" in markdown
    assert "`````sh\necho ```` done\n`````" in markdown
    widths = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in markdown.split("### What")[0].splitlines()
        if line.startswith("|")
    }
    assert widths == {5}


def test_markdown_aligns_numbers_right_and_words_left():
    markdown = render_markdown(large_record(4, 30))
    gains = markdown.split("## Gains by collection")[1]
    assert re.search(r"\n(\|---\|---(?:\|---:){10}\|)\n", gains)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_holds_no_tag_of_others(text):
    for part in re.split(r"\n`{3,}(?:sh)?\n", render_markdown(hostile_record(text)))[::2]:
        assert "<" not in part


# LaTeX


def test_latex_escapes_all_that_it_would_read():
    assert latex_text(r"50 % & _ # {} ~ ^ \ $") == (
        r"50 \% \& \_ \# \{\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$"
    )
    assert latex_text("é Ä ñ ç š") == "\\'{e} \\\"{A} \\~{n} \\c{c} \\v{s}"
    assert latex_text("検±…") == "\\erasign{691C}\\textpm{}\\ldots{}"
    assert latex_text("[*]") == "{[}{*}{]}"


def test_latex_marks_best_stars_and_small_intervals(record):
    latex = render_latex(record)
    row = next(line for line in latex.splitlines() if line.startswith("\\textbf{era-dual} &"))
    cells = row.removesuffix(" \\\\").split(" & ")
    assert cells[1] == "\\textbf{0.611}"
    assert cells[2] == (
        "\\textbf{0.607}\\makebox[1.35em][l]{\\textsuperscript{***}} "
        "{\\scriptsize {[}0.589, 0.625{]}}"
    )
    assert "$+$0.077" in latex
    assert "$-$0.007" in latex


def test_latex_is_ascii_and_names_its_packages():
    latex = render_latex(large_record(3, 10) | {"title": "検索"})
    assert latex.isascii()
    packages = re.findall(r"% +\\usepackage\{(\w+)\}", latex)
    used = {
        "booktabs": "\\toprule",
        "longtable": "\\begin{longtable}",
        "graphicx": "\\resizebox",
        "textcomp": "\\textdegree",
    }
    assert packages == list(used)
    full = render_latex(large_record(41, 10))
    assert all(command in full for command in used.values())


def test_latex_rows_have_as_many_cells_as_their_heads():
    for kinds, body in re.findall(
        r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}(.*?)\\bottomrule",
        render_latex(large_record(4, 30)),
        re.DOTALL,
    ):
        rows = [line for line in body.splitlines() if line.endswith(" \\\\")]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(kinds)}


@pytest.mark.parametrize("text", ["", HOSTILE[2] + "* [x] Ж\U0001f50d"])
def test_latex_compiles(tmp_path, text):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex on the PATH")
    tables = render_latex(hostile_record(text))
    (tmp_path / "tables.tex").write_text(tables)
    packages = "\n".join(re.findall(r"%\s+(\\usepackage\S+)", tables))
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n"
        "\\input{tables}\n\\typeout{the end}\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "paper"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "the end" in done.stdout
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


# CSV


def lines_of(record, section):
    lines = list(csv.DictReader(io.StringIO(render_csv(record))))
    return [line for line in lines if line["section"] == section]


def number(text):
    return None if text == "" else float(text)


def test_csv_keeps_the_full_precision_of_every_estimate(record):
    found = lines_of(record, "candidates")
    expected = {
        (candidate["name"], measure): estimate
        for candidate in record["candidates"]
        for measure, estimate in candidate["measures"].items()
    }
    assert len(found) == len(expected) == 8
    for line in found:
        estimate = expected[line["candidate"], line["measure"]]
        for key in Estimate.__struct_fields__:
            assert number(line[key]) == estimate.get(key), key
    assert [line["candidate"] for line in found if line["chosen"] == "yes"] == ["era-dual"] * 2
    held_out = {line["candidate"]: float(line["mean"]) for line in lines_of(record, "held-out")}
    assert held_out == {"small": 0.5284, "linear": 0.5342, "era-dual": 0.6113}


def test_the_table_for_a_paper_is_one_table(record) -> None:
    text = render_latex_table(read(record))
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 1
    assert "\\begin{longtable}" not in text
    assert "\\label{tab:era-candidates}" in text
    assert text.isascii()


def test_csv_holds_every_number_of_every_part():
    record = large_record(5, 40)
    for line, row in zip(lines_of(record, "gains")[::2], record["gains"]["rows"], strict=True):
        assert (line["collection"], line["domain"]) == (row["collection"], row["domain"])
        keys = ("baseline", "mean", "difference", "p", "p_holm", "effect", "detectable")
        assert [float(line[key]) for key in keys] == [row[key] for key in keys]
        assert float(line["difference_low"]) == row["low"]
        assert float(line["difference_high"]) == row["high"]
        assert int(line["count"]) == row["queries"]
    large = lines_of(record, "gains")[1::2]
    assert [float(line["mean"]) for line in large] == [r["large"] for r in record["gains"]["rows"]]
    for section, key in (("collections", "by_collection"), ("domains", "by_domain")):
        values = [v for group in record[key] for v in group["candidates"].values()]
        assert [float(line["mean"]) for line in lines_of(record, section)] == values
    matrix = lines_of(record, "matrix")
    assert [float(line["mean"]) for line in matrix] == [
        value for row in record["matrix"]["values"] for value in row
    ]
    assert matrix[7]["trained_on"] == record["matrix"]["rows"][1]
    assert matrix[7]["domain"] == record["matrix"]["columns"][2]
    values = record["matrix"]["values"][1][2], record["matrix"]["baseline"][2]
    assert float(matrix[7]["difference"]) == values[0] - values[1]
    points = lines_of(record, "query-values")
    assert [[float(p["baseline"]), float(p["mean"]), int(p["count"])] for p in points] == (
        record["queries"]["points"]
    )
    counts = {line["item"]: int(line["count"]) for line in lines_of(record, "queries")}
    assert counts == {key: record["queries"][key] for key in ("better", "equal", "worse")}
    wins = lines_of(record, "wins")
    assert [(w["item"], w["value"]) for w in wins] == [
        (q["query"], q["text"]) for q in record["queries"]["wins"]
    ]
    scores = lines_of(record, "scores")
    for part in ("positives", "hardest", "others"):
        found = [int(s["count"]) for s in scores if s["item"] == part]
        assert found == record["scores"][0][part] + record["scores"][1][part]
    curve = lines_of(record, "curve")
    assert len(curve) == 4 * 6
    assert {(float(c["labels_percent"]), c["train"]) for c in curve} == {
        (round(100 * p["labels"], 6), str(p["train"])) for p in record["curve"]
    }


def test_csv_lines_have_one_length_and_texts_cannot_become_formulas():
    record = hostile_record("=1+")
    table = list(csv.reader(io.StringIO(render_csv(record))))
    assert {len(line) for line in table} == {len(table[0])}
    cells = {cell for line in table[1:] for cell in line}
    assert not [cell for cell in cells if cell[:1] in ("=", "@", "\t")]
    assert any(cell.startswith("'=1+") for cell in cells)
    assert any(cell.startswith("-0.") for cell in cells)  # numbers stay numbers


def test_options_that_are_shares_are_shown_in_percent(record) -> None:
    record["configuration"] = {"labels": [0.05, 0.2], "test": 0.5, "recipe": {"spread": 0.25}}
    facts = read(record).facts["configuration"]
    assert facts == [("labels", '["5 %", "20 %"]'), ("test", "50 %"), ("recipe.spread", "0.25")]
