"""What every format of a report shows, in order, so that the formats cannot disagree.

In: a ``Report``. Out: sections of tables and lists.
"""

from __future__ import annotations

from collections.abc import Iterable

from era_cache.report.candidate_tables import (
    candidate_table,
    curve_table,
    difference_tables,
    kinds_table,
    stored_table,
    summary_of,
)
from era_cache.report.collection_tables import (
    collection_means_table,
    domain_means_table,
    gains_table,
    matrix_table,
)
from era_cache.report.query_tables import query_tables, score_table
from era_cache.report.records import BASELINE, Report
from era_cache.report.tables import (
    Cell,
    Listing,
    Section,
    Table,
    count_cell,
    pair_table,
    percent_text,
)

__all__ = ["brief_tables", "lead_of", "sections_of"]


def lead_of(report: Report) -> list[str]:
    """The sentences above everything: what is reached, and why this candidate."""
    return [sentence for sentence in (summary_of(report), report.choice_reason) if sentence]


def _tables(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None and table.rows)


def sections_of(report: Report) -> list[Section]:
    """List what every format shows, without what has nothing to show."""
    sections = [
        Section("Candidates", "candidates", _tables(candidate_table(report), kinds_table(report))),
        Section(f"Differences from {BASELINE}", "differences", _tables(*difference_tables(report))),
        Section("Label efficiency", "labels", _tables(curve_table(report))),
        Section("Gains by collection", "gains", _tables(gains_table(report))),
        Section(
            "Means by collection and domain",
            "means",
            _tables(collection_means_table(report), domain_means_table(report)),
        ),
        Section("Trained here, measured there", "transfer", _tables(matrix_table(report))),
        Section("Query by query", "queries", _tables(*query_tables(report))),
        Section("Scores before and after", "scores", _tables(score_table(report))),
        Section("Stored as int8", "int8", _tables(stored_table(report))),
        Section(
            "Costs",
            "costs",
            _tables(pair_table("Costs", "", ("what", "value"), report.facts["costs"], "costs")),
        ),
        Section("Commands", "commands", _listing("Commands", report.commands, code=True)),
        Section("Notes", "notes", _listing("Notes", report.notes)),
        Section("Set-up", "set-up", _tables(*_set_up(report))),
    ]
    return [section for section in sections if section.blocks]


def brief_tables(report: Report) -> list[Table]:
    """What a terminal shows after a run; the candidates last, where its reader looks."""
    domains = domain_means_table(report) if len(report.by_domain) > 2 else None
    return [*_tables(curve_table(report), domains, candidate_table(report))]


def _listing(title: str, items: tuple[str, ...], *, code: bool = False) -> tuple[Listing, ...]:
    return (Listing(title, items, code),) if items else ()


def _set_up(report: Report) -> Iterable[Table]:
    split = report.split
    facts = (
        ("protocol", report.protocol),
        ("primary measure", report.primary),
        ("split", split.rule),
        ("seeds of the split", ", ".join(map(str, split.seeds))),
        ("labels used for training", percent_text(split.labels)),
        ("training queries", f"{split.train:,}"),
        ("validation queries", f"{split.validation:,}"),
        ("test queries", f"{split.test:,}"),
        *((f"{side} encoder", name) for side, name in report.encoders.items()),
    )
    collections = Table(
        "Collections",
        "Tested: distinct test queries that were measured",
        tuple(
            Cell(text)
            for text in ("collection", "domain", "version", "documents", "queries", "tested")
        ),
        tuple(
            (
                *(Cell(text) for text in (one.name, one.domain, one.version)),
                *(count_cell(number) for number in (one.documents, one.queries, one.test)),
            )
            for one in report.collections
        ),
        name="collections",
        rows_are="collections",
    )
    return (
        collections,
        pair_table(
            "Split and encoders", "Counts are of one seed", ("what", "value"), facts, "split"
        ),
        *(
            table._replace(folded=True)  # for who repeats it, not for who reads
            for table in (
                pair_table(
                    "Inputs", "Digests", ("what", "value"), report.facts["inputs"], "inputs"
                ),
                pair_table(
                    "Configuration",
                    "Every option",
                    ("option", "value"),
                    report.facts["configuration"],
                    "configuration",
                ),
                pair_table(
                    "Environment",
                    "Versions used",
                    ("software", "version"),
                    report.facts["environment"],
                    "software",
                ),
            )
        ),
    )
