"""What a transfer has to copy, and what each file must be before it may be.

In: the listings of two places and their encoders' records. Out: steps in the order in which they
keep the destination useful at any moment, each with its check (files come from strangers), and what
is refused beforehand. Nothing is written.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from era_cache.disk.json_files import read_record
from era_cache.errors import FormatError, StoreError
from era_cache.store.encoder_record import StoredSpec, read_encoder_record
from era_cache.store.lists import read_lists
from era_cache.store.names import FOLDER, encoder_folder_name
from era_cache.store.read_rows import read_blocks, repeats_a_key
from era_cache.store.records import StoreRecord, read_pair, read_stored_collection
from era_cache.store.segment import Segment, open_segment
from era_cache.store.sync.places import LIMITS, Check, Listing, Place, kind_of, limited

__all__ = ["Plan", "Step", "list_source", "plan_transfer", "shown_as"]

T = TypeVar("T")


class Step(NamedTuple):
    """One file to copy: where from, where to, and what it must be."""

    kind: str
    name: str
    target: str
    size: int
    check: Check
    look: Callable[[Path], object] | None = None
    """At what a file on a disk shows before all of it is read: it may claim any size."""


class Plan(NamedTuple):
    """What to copy; ``counts`` are by (kind, ``present``, ``replaced`` or ``refused``)."""

    steps: list[Step]
    counts: Counter[tuple[str, str]]
    refused: dict[str, str]

    def refuse(self, name: str, reason: str) -> None:
        """Leave a file out."""
        self.refused[name] = reason
        self.counts[kind_of(name) or FOLDER, "refused"] += 1


class _Home(NamedTuple):
    """An encoder in the destination; ``folders`` are all of its folders, the first receives."""

    spec: StoredSpec
    folders: list[str]


def list_source(source: Place) -> Listing:
    """List a place that must hold a store.

    Raises:
        FormatError: the store is of a newer version.
        StoreError: there is none, or the place cannot be read.
    """
    listing = source.listing()
    if "store.json" in listing.files:
        _read(source, "store.json", lambda path: read_record(path, StoreRecord))
        return listing
    raise StoreError(
        f"{source.label}: not a store (no store.json). Check the path. If a push to it was "
        "interrupted, finish that first; if it is a pack, copy it again."
    )


def plan_transfer(
    source: Place, listing: Listing, target: Place | None, replaced: Callable[[str, str], bool]
) -> Plan:
    """Plan what to copy, in order: collections, each encoder, pairs, runs, then ``store.json``.

    So rows in flight belong to a collection from the beginning, and segments to an encoder; a place
    outside becomes a store when everything is there.

    Args:
        source: where files come from.
        listing: what lies there.
        target: where they go; None where nothing can be there yet.
        replaced: whether a segment (folder of its encoder, digest) lives on in another one there.

    Raises:
        FormatError: the destination is damaged or newer.
        StoreError: a place cannot be read.
    """
    plan = Plan([], Counter(), {})
    for name, reason in listing.refused.items():
        plan.refuse(name, reason)
    planner = _Planner(source, listing, target, replaced, plan)
    for name in sorted(listing.files):
        try:
            planner.add(name)
        except FormatError as error:
            plan.refuse(name, str(error))
    plan.steps.sort(key=lambda step: step.target)
    return plan


class _Planner:
    """Decides file by file, in sorted order, so that an encoder comes before its segments."""

    def __init__(
        self,
        source: Place,
        listing: Listing,
        target: Place | None,
        replaced: Callable[[str, str], bool],
        plan: Plan,
    ) -> None:
        self._source, self._listing, self._plan = source, listing, plan
        self._target, self._replaced = target, replaced
        self._there = target.listing() if target else Listing({}, {})
        for reason in self._there.refused.values():
            raise FormatError(f"{reason} Nothing in a store may lead outside it. Remove it.")
        if target and "store.json" in self._there.files:
            _read(target, "store.json", lambda path: read_record(path, StoreRecord))
        self._folders_there = [
            name.split("/")[1] for name in self._there.files if kind_of(name) == "encoder"
        ]
        self._homes: dict[str, _Home] = {}
        self._planned: set[str] = set()

    def add(self, name: str) -> None:
        """Plan one file. Raises ``FormatError`` where it is refused."""
        kind, size = str(kind_of(name)), self._listing.files[name]
        if size > LIMITS[kind]:
            raise FormatError(
                f"{self._source.label}/{name}: {size} bytes; at most {LIMITS[kind]} are accepted."
            )
        if kind == "segment":
            self._add_segment(name, size)
            return
        target = name
        if kind == "encoder":
            target = f"encoders/{self._add_home(name.split('/')[1]).folders[0]}/encoder.json"
        if target in self._there.files:
            self._plan.counts[kind, "present"] += 1
        else:
            self._copy(Step(kind, name, target, size, _check_of(kind, name)))

    def _add_segment(self, name: str, size: int) -> None:
        _, folder, _, base = name.split("/")
        home = self._homes.get(folder)
        if home is None:
            raise FormatError(
                f"{self._source.label}/{name}: its encoder.json is missing, or was refused."
            )
        for other in home.folders:
            there = self._there.files.get(f"encoders/{other}/segments/{base}")
            # Another size under the same name of content: the one there is damaged.
            if there is not None and (there == size or -1 in (there, size)):
                self._plan.counts["segment", "present"] += 1
                return
            if self._replaced(other, base.removesuffix(".h5")):
                self._plan.counts["segment", "replaced"] += 1
                return
        target = f"encoders/{home.folders[0]}/segments/{base}"
        check, look = _check_segment(base, home.spec)
        self._copy(Step("segment", name, target, size, check, look))

    def _copy(self, step: Step) -> None:
        if step.target in self._planned:  # two folders of one encoder hold the same
            self._plan.counts[step.kind, "present"] += 1
            return
        self._planned.add(step.target)
        self._plan.steps.append(step)

    def _add_home(self, folder: str) -> _Home:
        """Find the destination's folders of a fingerprint, whatever they are called."""
        spec = _read_encoder(self._source, folder)
        end = encoder_folder_name("", spec.role, spec.fingerprint)
        found = []
        for other in sorted(self._folders_there):
            if self._target is None or not other.endswith(end):
                continue
            known = _read_encoder(self._target, other)
            self._same(folder, spec, self._target.label, known)
            found.append(other)
        for home in self._homes.values():
            if home.folders[0].endswith(end):
                self._same(folder, spec, self._source.label, home.spec)
                found = found or home.folders
        self._homes[folder] = _Home(spec, found or [folder])
        return self._homes[folder]

    def _same(self, folder: str, spec: StoredSpec, where: str, known: StoredSpec) -> None:
        if (known.fingerprint, known.dim) != (spec.fingerprint, spec.dim):
            raise FormatError(
                f"{self._source.label}/encoders/{folder}: vectors of {spec.dim} dimensions, but "
                f"{where} has {known.dim} for fingerprint {known.fingerprint[:12]}. One of the two "
                "models or libraries is broken; keep these stores apart."
            )


def _read_encoder(place: Place, folder: str) -> StoredSpec:
    name = f"encoders/{folder}/encoder.json"
    return _read(place, name, lambda path: read_encoder_record(path, folder))


def _read(place: Place, name: str, read: Callable[[Path], T]) -> T:
    """Read a small file of a place, as a file here."""
    shown, limit = f"{place.label}/{name}", LIMITS[str(kind_of(name))]
    with tempfile.TemporaryDirectory(prefix="era-") as scratch:
        path = Path(scratch) / "record.json"
        path.write_bytes(b"".join(limited(place.chunks(name), limit, shown)))
        with shown_as(path, shown):
            return read(path)


def _check_of(kind: str, name: str) -> Check:
    """The check of a file that is no segment.

    Args:
        kind: as ``places.kind_of`` gives it.
        name: path in its store.
    """
    folder, _, base = name.rpartition("/")
    readers: dict[str, Callable[[Path], object]] = {
        "collection": partial(read_stored_collection, name=base),
        "pair": partial(read_pair, name=base),
        "lists": partial(read_lists, name=base),
        "encoder": partial(read_encoder_record, folder=folder.rpartition("/")[2]),
        "store": partial(read_record, kind=StoreRecord),
    }
    return lambda path, _digest: readers[kind](path)


def _check_segment(base: str, spec: StoredSpec) -> tuple[Check, Callable[[Path], object]]:
    """The check of a segment, and the part of it that reads only its structure.

    Args:
        base: its file name.
        spec: of its encoder.
    """

    def look(path: Path) -> Segment:
        return open_segment(path, spec.fingerprint, spec.dim)

    def check(path: Path, digest: str) -> None:
        if f"{digest}.h5" != base:
            raise FormatError(
                f"{path}: the content's SHA-256 is {digest[:12]}…, the name says {base[:12]}…; "
                "damaged, or cut off."
            )
        segment = look(path)
        for _, rows in read_blocks(segment):
            if not rows.values.any(axis=1).all():
                raise FormatError(f"{path}: holds a row of zeros, which no encoder here stores.")
        with segment.plain.opened() as reader:
            if repeats_a_key(segment, reader):
                raise FormatError(f"{path}: holds a key twice.")

    return check, look


@contextlib.contextmanager
def shown_as(path: Path, shown: str) -> Iterator[None]:
    """Name a file in errors by where it came from, not by where it is looked at."""
    try:
        yield
    except FormatError as error:
        raise type(error)(str(error).replace(str(path), shown)) from error
