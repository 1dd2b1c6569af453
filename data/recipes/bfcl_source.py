"""Function cards and requests, read from the data of the Python package ``bfcl-eval``.

In: its data folder: files of JSON lines, each a request with the functions offered for it, and in
``possible_answer/`` a file of the same name with the calls that answer it. The package is found and
read, never imported; what its files say is checked like any stranger's.
Out: distinct cards and distinct requests with the rows of the cards that their answers call.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from era_cache.errors import InputError

__all__ = ["PACKAGE", "Card", "Reading", "Request", "find_installed", "read_folder"]

PACKAGE = "bfcl-eval"
_ENUM_CHARACTERS = 100  # longer lists of values say little about what the function does
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAY_HOLD_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_UNFIT_FOR_ID = re.compile(r"[\s\x00-\x1f\x7f]")

_Json = dict[str, object]
_T = TypeVar("_T", str, list[object], dict[str, object])


class Card(NamedTuple):
    """A document: one distinct (name, description, parameters)."""

    doc_id: str
    name: str
    text: str
    twin_key: tuple[str, str]
    """Name, and description after folding case and white space."""


@dataclass
class Request:
    """A query: one distinct text, and the rows of the cards that its answers call."""

    query_id: str
    text: str
    doc_rows: set[int] = field(default_factory=set)


@dataclass
class Reading:
    """Everything read; rows of ``cards`` follow the order of reading.

    ``tally`` counts files, skipped_files, functions_read, requests_read, merged_requests,
    unanswered_requests, empty_requests and replaced_characters.
    """

    tally: Counter[str] = field(default_factory=Counter)
    cards: list[Card] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)  # canonical JSON -> row of cards
    doc_ids: set[str] = field(default_factory=set)
    entry_ids: set[str] = field(default_factory=set)
    requests: dict[str, Request] = field(default_factory=dict)  # by text


def find_installed() -> tuple[Path, str]:
    """Find the installed package's data folder, without importing the package.

    Returns:
        The folder, and the version of the package.

    Raises:
        InputError: the package is not installed.
    """
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the Python package {PACKAGE} is not installed. "
            f"Run: pip install --no-deps {PACKAGE}, or name its unpacked bfcl_eval/data folder."
        ) from error
    return Path(str(package.locate_file("bfcl_eval/data"))), package.version


def read_folder(source: Path) -> Reading:
    """Read every file of requests with functions; files of other kinds are skipped.

    Args:
        source: the package's data folder, ``bfcl_eval/data``.

    Returns:
        Cards and requests in the order of (file name, line).

    Raises:
        InputError: a line is broken or holds a wrong type, an answer does not fit its request, or
            the folder has no request with an answer.
    """
    reading = Reading()
    for path in sorted(source.glob("BFCL_v4_*.json")):
        lines = _read_lines(path)
        # Other kinds are one JSON value over many lines, or lines that offer no functions.
        if not lines or lines[0][1].strip() == b"{" or lines[0][1].lstrip().startswith(b"["):
            reading.tally["skipped_files"] += 1
            continue
        entries = [(where, _parse(where, raw, reading.tally)) for where, raw in lines[:1]]
        if "function" not in entries[0][1]:
            reading.tally["skipped_files"] += 1
            continue
        entries += [(where, _parse(where, raw, reading.tally)) for where, raw in lines[1:]]
        reading.tally["files"] += 1
        _read_entries(reading, entries, path.parent / "possible_answer" / path.name)
    if not reading.requests:
        raise InputError(
            f"{source} has no BFCL_v4_*.json file with answered function calls. "
            f"Expected the folder bfcl_eval/data of the Python package {PACKAGE}."
        )
    return reading


def _read_lines(path: Path) -> list[tuple[str, bytes]]:
    """Split a file into its lines that are not blank, each with the words that locate it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    numbered = enumerate(content.split(b"\n"), start=1)
    return [(f"{path} line {number}", raw) for number, raw in numbered if raw.strip()]


def _parse(where: str, raw: bytes, tally: Counter[str]) -> _Json:
    line = raw.decode("utf-8", "surrogateescape")
    try:
        value: object = json.loads(line)
        if _MAY_HOLD_SURROGATE.search(line):
            text = json.dumps(value, ensure_ascii=False)
            text, replaced = _LONE_SURROGATE.subn("\ufffd", text)
            tally["replaced_characters"] += replaced
            value = json.loads(text)
    # Also numbers of too many digits (ValueError) and brackets nested too deep (RecursionError).
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a line of JSON ({error}). Reinstall {PACKAGE}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(value).__name__}.")
    return value


def _check(value: object, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind):
        wanted = {str: "a string", list: "a list", dict: "an object"}[kind]
        raise InputError(f"{what} must be {wanted}, found {type(value).__name__}.")
    return value


def _check_id(value: object, what: str) -> str:
    text = _check(value, str, what)
    if not text or _UNFIT_FOR_ID.search(text):
        raise InputError(f"{what} must be a name without white space, found {text!r}.")
    return text


def _read_entries(reading: Reading, entries: list[tuple[str, _Json]], answer_path: Path) -> None:
    """Add the entries of one file; without an answer file, only their functions count."""
    answers = _read_answers(answer_path, reading.tally) if answer_path.exists() else {}
    for where, entry in entries:
        entry_id = _check_id(entry.get("id"), f"{where}: 'id'")
        if entry_id in reading.entry_ids:
            raise InputError(f"{where}: id {entry_id!r} was used before; ids must be unique.")
        reading.entry_ids.add(entry_id)
        offered: dict[str, set[int]] = {}
        for function in _check(entry.get("function"), list, f"{where}: 'function'"):
            row = _add_card(reading, _check(function, dict, f"{where}: a function"), where)
            offered.setdefault(reading.cards[row].name, set()).add(row)
        text = _request_text(entry, where)
        answer_where, called = answers.pop(entry_id, (where, set()))
        if unknown := sorted(called - offered.keys()):
            raise InputError(
                f"{answer_where}: the answer calls {unknown[0]!r}, "
                f"which {where} does not offer. Reinstall {PACKAGE}."
            )
        if not called:
            reading.tally["unanswered_requests"] += 1
        elif not text.strip():
            reading.tally["empty_requests"] += 1
        else:
            reading.tally["requests_read"] += 1
            reading.tally["merged_requests"] += text in reading.requests
            request = reading.requests.setdefault(text, Request(entry_id, text))
            request.doc_rows.update(*(offered[name] for name in called))
    for entry_id, (where, _) in answers.items():
        raise InputError(f"{where}: the answer is for {entry_id!r}, which is not in the requests.")


def _read_answers(path: Path, tally: Counter[str]) -> dict[str, tuple[str, set[str]]]:
    """Read ``possible_answer/``: by entry id, where the answer stands and the names it calls."""
    answers: dict[str, tuple[str, set[str]]] = {}
    for where, raw in _read_lines(path):
        record = _parse(where, raw, tally)
        entry_id = _check_id(record.get("id"), f"{where}: 'id'")
        if entry_id in answers:
            raise InputError(f"{where}: a second answer for {entry_id!r}.")
        calls = _check(record.get("ground_truth"), list, f"{where}: 'ground_truth'")
        names = {name for call in calls for name in _check(call, dict, f"{where}: a call")}
        answers[entry_id] = (where, names)
    return answers


def _request_text(entry: _Json, where: str) -> str:
    """Join what the user says, in all turns; system and assistant messages are left out."""
    said = []
    for turn in _check(entry.get("question"), list, f"{where}: 'question'"):
        for item in _check(turn, list, f"{where}: a turn of 'question'"):
            message = _check(item, dict, f"{where}: a message")
            content = _check(message.get("content"), str, f"{where}: 'content' of a message")
            if _check(message.get("role"), str, f"{where}: 'role' of a message") == "user":
                said.append(content)
    return "\n".join(said)


def _add_card(reading: Reading, function: _Json, where: str) -> int:
    """Return the row of a function's card, which is new unless it was seen before."""
    reading.tally["functions_read"] += 1
    name = _check_id(function.get("name"), f"{where}: 'name' of a function")
    where = f"{where}, function {name!r}"
    given, schema = function.get("description"), function.get("parameters")
    description = "" if given is None else _check(given, str, f"{where}: 'description'")
    parameters = {} if schema is None else _check(schema, dict, f"{where}: 'parameters'")
    canonical = json.dumps([name, given, schema], sort_keys=True, ensure_ascii=False)
    if canonical not in reading.rows:
        digest = hashlib.blake2b(canonical.encode()).hexdigest()
        # A longer tail only where two cards of one name share their first 8 digits.
        tails = (f"{name}#{digest[:length]}" for length in range(8, len(digest) + 1, 8))
        doc_id = next(tail for tail in tails if tail not in reading.doc_ids)
        lines = [description, *_parameter_lines(parameters, where)]
        text = "\n".join(line for line in lines if line.strip())
        reading.rows[canonical] = len(reading.cards)
        reading.doc_ids.add(doc_id)
        reading.cards.append(Card(doc_id, name, text, (name, _fold(description))))
    return reading.rows[canonical]


def _fold(text: str) -> str:
    return " ".join(text.lower().split())


def _parameter_lines(schema: _Json, where: str, parent: str = "") -> Iterator[str]:
    """Describe each parameter in a line, and those one level inside it after it."""
    properties = _check(schema.get("properties") or {}, dict, f"{where}: 'properties'")
    for key, value in properties.items():
        name = f"{parent}{key}"
        spot = f"{where}, parameter {name!r}"
        spec = _check(value, dict, spot)
        kind = _check(spec.get("type") or "", str, f"{spot}: 'type'")
        said = _check(spec.get("description") or "", str, f"{spot}: 'description'")
        values = _check(spec.get("enum") or [], list, f"{spot}: 'enum'")
        joined = ", ".join(v if isinstance(v, str) else json.dumps(v) for v in values)
        one_of = f"one of: {joined}" if values and len(joined) <= _ENUM_CHARACTERS else ""
        about = " ".join(part for part in (said.strip(), one_of) if part)
        yield name + (f" ({kind})" if kind else "") + (f": {about}" if about else "")
        if not parent:
            for inner in (spec, spec.get("items")):
                if isinstance(inner, dict):
                    yield from _parameter_lines(inner, spot, f"{name}.")
