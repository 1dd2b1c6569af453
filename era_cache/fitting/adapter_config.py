"""What an adapter folder says of itself: ``config.json`` and ``metrics.json`` (docs/format.md).

In: what was fitted, or files that may come from anyone. Out: checked records. Fields that older
files lack have defaults, and a default is not written; unknown fields are passed over.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from era_cache.collection.config import SplitConfig
from era_cache.fitting.adapter import VIEWS

__all__ = [
    "FORMAT",
    "VERSION",
    "AdapterConfig",
    "CandidateMetrics",
    "CandidateRecord",
    "FittedOn",
    "FusionRecord",
    "Metrics",
    "ModelRecord",
    "NamedCollection",
    "NamedEncoder",
    "Parts",
    "SplitRecord",
    "Table",
]

FORMAT, VERSION = "era-adapter", 4
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of one of the two files."""


class Table(_Part, frozen=True, kw_only=True):
    """A reference table; more steps would only serve to keep a stranger's victim busy."""

    view: str
    entries: Annotated[int, Meta(ge=1)]
    temperature: Annotated[float, Meta(ge=1e-6, le=1e6)]
    step: Annotated[float, Meta(ge=0, le=1e6)]
    steps: Annotated[int, Meta(ge=1, le=100)]
    contrast: bool
    pull: Annotated[float, Meta(ge=0, le=1)] = 0.0


class FusionRecord(_Part, frozen=True, kw_only=True):
    """A first stage that joins in; ``of`` names the candidate whose file it is, maybe its own."""

    run: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")]
    weight: Annotated[float, Meta(ge=0, le=1e9)]
    of: str


class CandidateRecord(_Part, frozen=True, kw_only=True):
    """One candidate: the views it reads, its parts, and the SHA-256 of its file."""

    views: tuple[str, ...]
    bias: bool
    shape: tuple[int, int]
    hidden: Count = 0
    references: tuple[Table, ...] = ()
    fusion: FusionRecord | None = None
    sha256: str

    def __post_init__(self) -> None:
        views = set(self.views)
        if not views or len(views) != len(self.views) or not views <= set(VIEWS):
            raise ValueError(f"unknown views {self.views}")
        if any(table.view not in views for table in self.references):
            raise ValueError("references of a view it does not read")


class NamedCollection(_Part, frozen=True, kw_only=True):
    """A collection by name and digest."""

    name: str
    digest: str


class NamedEncoder(_Part, frozen=True, kw_only=True):
    """One side of the pair of encoders."""

    name: str
    fingerprint: str
    space: str = ""
    template: str = ""
    dim: Count = 0


class ModelRecord(_Part, frozen=True, kw_only=True):
    """What opens the model of a view of queries again: its identity, and where it came from."""

    identity: dict[str, Any]
    source: dict[str, Any] = {}


class Parts(_Part, frozen=True, kw_only=True):
    """Numbers of queries; arrays have no test queries."""

    train: Count
    validation: Count
    test: Count | None = None


class SplitRecord(_Part, frozen=True, kw_only=True):
    """A split: how it was made, and which queries it tests."""

    rule: str
    seed: Count
    labels: Share
    test: Share
    validation: Share
    count: Count | None = None
    queries: Parts | None = None
    test_digest: str

    def config(self) -> SplitConfig:
        """How it is made again."""
        return SplitConfig(
            self.rule, self.seed, self.labels, self.test, self.validation, self.count or 0
        )


class FittedOn(_Part, frozen=True, kw_only=True):
    """One collection that an adapter was fitted on."""

    collection: NamedCollection
    split: SplitRecord


class AdapterConfig(_Part, frozen=True, kw_only=True):
    """``config.json``. What was fitted on arrays has no split, and ``encoders`` is empty.

    ``models`` are those of the views of queries, ``first_stage`` says what made the lists that
    candidates are joined with, by name.
    ``collection`` and ``split`` are those of the first of several ``collections``. ``version`` and
    ``candidates`` are written as the adapters need them, whatever they are here.
    """

    version: Annotated[int, Meta(ge=1)] = 0
    chosen: str
    candidates: dict[str, CandidateRecord] = {}
    collection: NamedCollection | None = None
    split: SplitRecord | None = None
    collections: tuple[FittedOn, ...] = ()
    aligned_with: tuple[NamedCollection, ...] = ()
    encoders: dict[str, NamedEncoder] | None = None
    models: dict[str, ModelRecord] = {}
    dimensions: dict[str, int] | None = None
    queries: Parts | None = None
    alignment_documents: Count | None = None
    first_stage: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    environment: dict[str, str] = {}
    choice_reason: str = ""

    def __post_init__(self) -> None:
        if self.version and self.chosen not in self.candidates:
            raise ValueError("no chosen candidate")
        described = self.candidates.values()
        if self.version == 1 and any(one.hidden or one.references for one in described):
            raise ValueError("version 1 has no hidden layer and no references")
        if 0 < self.version < 3 and any(t.pull for one in described for t in one.references):
            raise ValueError("references have a pull from version 3 on")
        if 0 < self.version < 4 and any(one.fusion is not None for one in described):
            raise ValueError("a first stage joins from version 4 on")

    def fitted_on(self) -> list[FittedOn]:
        """All collections that it was fitted on; none where that is not recorded."""
        if self.collections or self.collection is None or self.split is None:
            return list(self.collections)
        return [FittedOn(collection=self.collection, split=self.split)]


class CandidateMetrics(_Part, frozen=True, kw_only=True, omit_defaults=False):
    """The held-out mean of a candidate, and what was chosen for it."""

    validation: float | None = None
    options: dict[str, Any] = {}


class Metrics(_Part, frozen=True, kw_only=True):
    """``metrics.json``: what held-out labels said. ``alignment`` is there if it was measured.

    ``signs`` are what the vectors of each collection say without labels (``fitting.signs``).
    """

    primary: str = ""
    judging_queries: Count | None = None
    missing: list[str] | UnsetType = UNSET
    alignment: dict[str, Any] | UnsetType | None = UNSET
    signs: list[dict[str, Any]] = []
    candidates: dict[str, CandidateMetrics] = {}
    seconds: dict[str, float] = {}
