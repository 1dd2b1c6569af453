"""Verification of one folder of an encoder: its record, its segments, and what lies beside them.

In: a walk through a store, and the scans of the folder's segments. Out: findings and numbers.
Damaged segments are set aside, never deleted, where that is asked for.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from era_cache.disk.files import make_folder, os_errors
from era_cache.disk.json_files import write_json
from era_cache.store.encoder_record import StoredSpec, read_encoder_record
from era_cache.store.names import FILE, FOLDER, INDEX_NAME, SEGMENT_NAME
from era_cache.store.retired import replacement
from era_cache.store.verify.report import EncoderState, Finding, Walk, exactly
from era_cache.store.verify.segment_scan import Norms, Scan

__all__ = ["CheckedFolder"]

_RECORD_NAME = re.compile(r"[0-9a-f]{64}\.json")


class CheckedFolder:
    """One folder of an encoder, and what was found in it."""

    def __init__(self, walk: Walk, name: str) -> None:
        self.name, self.path = f"encoders/{name}", walk.path(f"encoders/{name}")
        self._walk = walk
        self.scans: dict[str, Scan] = {}
        self.spec: StoredSpec | None = None
        parts = exactly("segments", "index", "retired", "quarantine")
        self._parts = walk.names(self.name, (exactly("encoder.json"), FILE), (parts, FOLDER))
        record = f"{self.name}/encoder.json"
        if "encoder.json" in self._parts:
            self.spec = walk.checked(record, lambda: read_encoder_record(walk.path(record), name))
        elif self.files("segments", SEGMENT_NAME):
            walk.add(
                Finding("damage", record, "missing: nothing reads the segments. Copy it back.")
            )
        else:
            message = "not there: a writer is just starting, or died before its first row"
            walk.add(Finding("warning", record, message))

    def files(self, part: str, *patterns: re.Pattern[str]) -> dict[str, int]:
        """The files of some names in one part of the folder, with their sizes."""
        if part not in self._parts:
            return {}
        return self._walk.names(f"{self.name}/{part}", *((pattern, FILE) for pattern in patterns))

    def take(self, name: str, scan: Scan) -> None:
        """Keep what a segment's scan found; damage is told later, with what it costs."""
        self.scans[name] = scan
        path = f"{self.name}/segments/{name}"
        for doubt in scan.doubts:
            self._walk.add(Finding("warning", path, doubt))
        if scan.problem is not None and scan.level != "damage":
            level = "newer" if scan.level == "newer" else "damage"
            self._walk.add(Finding(level, path, scan.problem))

    def unusable(self) -> set[str]:
        """Names of the segments that cannot be used here, for any reason."""
        return {name for name, scan in self.scans.items() if scan.problem is not None}

    def damaged(self) -> dict[str, Scan]:
        """The segments that nobody can use."""
        found = {name: scan for name, scan in self.scans.items() if scan.problem is not None}
        return {name: scan for name, scan in sorted(found.items()) if scan.level == "damage"}

    def tell_damage(self, name: str, rows: int | None, *, quarantine: bool) -> None:
        """Add the finding of a damaged segment, and set it aside where that is asked for.

        Args:
            name: of the segment.
            rows: how many distinct rows no other segment has; None where that cannot be told.
            quarantine: set it aside.
        """
        scan = self.scans[name]
        reason, done = str(scan.problem).rstrip("."), ""
        advice = "Run 'era-store verify --quarantine': era-embed then encodes only its rows."
        if self.spec is None:
            advice = "Mend encoder.json first, and verify again."
        elif quarantine:
            _set_aside(scan.path, reason, scan.segment.rows if scan.segment else None)
            done, advice = "quarantined", "The next era-embed encodes only its rows."
        cost = "" if rows is None else f" {rows} rows are in no other segment."
        path = f"{self.name}/segments/{name}"
        self._walk.add(Finding("damage", path, f"{reason}.{cost} {advice}", done, rows))

    def tell_restored(self, paths: Sequence[Path]) -> None:
        """Add a finding for each retired segment that is needed again, and is back."""
        for path in paths:
            message = "what had replaced it is damaged, so it was brought back from retired/."
            self._walk.add(Finding("warning", f"{self.name}/segments/{path.name}", message))

    def state(self) -> EncoderState | None:
        """Numbers of a folder whose encoder is known; records in it are checked, too."""
        retired = self._check_retired()
        aside = self.files("quarantine", SEGMENT_NAME, _RECORD_NAME)
        quarantined = sum(bool(SEGMENT_NAME.fullmatch(name)) for name in aside)
        if self.spec is None:
            return None
        sound = [s.segment for s in self.scans.values() if s.segment and s.problem is None]
        norms = Norms()
        for scan in self.scans.values():
            if scan.problem is None:
                norms = norms.joined(scan.norms)
        return EncoderState(
            folder=self.name,
            encoder=self.spec.name,
            role=self.spec.role.value,
            fingerprint=self.spec.fingerprint,
            segments=len(sound),
            rows=sum(segment.rows for segment in sound),
            bytes=sum(segment.plain.size for segment in sound),
            norms=norms.summary(),
            index_files=len(self.files("index", INDEX_NAME)),
            retired=retired,
            quarantined=quarantined,
        )

    def _check_retired(self) -> int:
        """Check the records of retired segments; give how many of these still take space."""
        found = self.files("retired", SEGMENT_NAME, _RECORD_NAME)
        segments = [name for name in found if SEGMENT_NAME.fullmatch(name)]
        for name in sorted(found.keys() - set(segments)):
            path = self.path / "retired" / name
            self._walk.checked(f"{self.name}/retired/{name}", partial(replacement, path))
        for name in segments:
            path = self.path / "retired" / name
            # Looked for again: a listing can miss a record that came while it was made.
            if not path.with_suffix(".json").is_file() and path.is_file():
                message = "retired without a record, at which writers stop. Move it to 'segments'."
                self._walk.add(Finding("damage", f"{self.name}/retired/{name}", message))
        return len(segments)


FORMAT, VERSION = "era-quarantine", 1


def _set_aside(path: Path, reason: str, rows: int | None) -> None:
    """Move a damaged segment into quarantine.

    Args:
        path: ``<encoder>/segments/<digest>.h5``; one that is gone already is passed over.
        reason: what is wrong with it.
        rows: how many it has; None where that cannot be told any more.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = path.parent.parent / "quarantine"
    make_folder(folder)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"format": FORMAT, "version": VERSION, "reason": reason, "rows": rows}
    write_json(folder / f"{path.stem}.json", {**record, "created": created})
    with os_errors("setting aside", path), contextlib.suppress(FileNotFoundError):
        path.rename(folder / path.name)
