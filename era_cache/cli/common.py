"""What all commands share: errors without tracebacks, common options, progress on stderr."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from era_cache import __version__
from era_cache.disk.files import check_writable
from era_cache.disk.shown import escaped
from era_cache.errors import EraError

if TYPE_CHECKING:
    pass

__all__ = [
    "Command",
    "EraCommand",
    "EraForms",
    "EraGroup",
    "OutFile",
    "OutFolder",
    "OutStore",
    "PathArgument",
    "StorePlace",
    "all_of",
    "check_option",
    "count",
    "device_option",
    "echo_json",
    "echo_table",
    "finite",
    "index_option",
    "json_option",
    "note",
    "overwrite_option",
    "percent",
    "percent_text",
    "say",
    "seed_number",
    "version_option",
]

# Read by GNU OpenMP when torch is imported. By default its threads spin long while they wait, and a
# second busy process on the machine then makes a fit four times slower; after a short spin they
# sleep, which costs nothing on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

INTERRUPTED = "Interrupted. What was committed is kept; the same command goes on from there."


_LONGEST_MESSAGE = 4000
Command = TypeVar("Command", bound="Callable[..., Any]")


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Turn errors of ours and Ctrl-C into one message and exit code 1."""
    warnings.simplefilter("ignore")  # other libraries' deprecations are not the user's business
    try:
        yield
    except click.ClickException as error:
        error.message = escaped(error.message, _LONGEST_MESSAGE)  # type: ignore[misc]
        raise
    except EraError as error:
        raise _failure(str(error)) from error
    except KeyboardInterrupt as error:
        raise _failure(INTERRUPTED) from error
    except MemoryError as error:
        raise _failure(
            "Out of memory. Use a machine with more, or a smaller collection."
        ) from error
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        what = error.filename or "standard output"
        raise _failure(f"{what}: {error.strerror}.") from error


def _failure(message: str) -> click.ClickException:
    return click.ClickException(escaped(message, _LONGEST_MESSAGE))


def _check_arguments(arguments: list[str]) -> None:
    """Refuse what is no text before any work: it could not be written down at the work's end.

    Raises:
        click.UsageError: an argument has bytes that the system's encoding does not know.
    """
    for argument in arguments:
        if "\0" in argument or any("\ud800" <= char <= "\udfff" for char in argument):
            raise click.UsageError(
                f"{argument!r} is no text in UTF-8. Rename the file or folder, or write the option "
                "anew; where the name is in another encoding, convmv converts it."
            )


class _Safe(click.Command):
    """A command that obeys no escape sequence of what it shows, and shows errors in a sentence."""

    def __init__(self, *given: Any, **extra: Any) -> None:
        super().__init__(*given, **extra)
        self.context_settings = {"show_default": True, **self.context_settings}

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        """Read the arguments."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # What the encoding lacks, such as 'é' in ASCII, is shown as \\xe9.
                stream.reconfigure(errors="backslashreplace")
        with _guarded():
            _check_arguments(args)
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command's function."""
        with _guarded():
            return super().invoke(ctx)


class EraCommand(_Safe):
    """A command whose known errors are shown without a traceback."""


class EraGroup(_Safe, click.Group):
    """A group of such commands."""

    command_class = EraCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a subcommand; one that is unknown is named as such, with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(sorted(self.commands))
            raise click.UsageError(f"No subcommand {args[0]!r}.{hint} (There are {known}.)", ctx)
        return super().resolve_command(ctx, args)


class EraForms(EraCommand):
    """A command such as ``era-fit STORE …`` with other forms beside it, such as ``era-fit sweep``.

    The first word decides; a folder that is named like a form is given as ``./sweep``.
    """

    forms: ClassVar[dict[str, click.Command]] = {}
    thing = "store"
    """What the first word is, where it is no form."""

    def main(  # type: ignore[override]
        self, args: Any = None, prog_name: Any = None, **extra: Any
    ) -> Any:
        """Hand over to another form where the first word names it."""
        given = list(sys.argv[1:] if args is None else args)
        name = prog_name or Path(sys.argv[0]).name
        if given and given[0] in self.forms:
            return self.forms[given[0]].main(given[1:], f"{name} {given[0]}", **extra)
        return super().main(given, name, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say of a first word that is no store whether it was meant as a form."""
        first = next((word for word in args if not word.startswith("-")), "")
        if first and args[0] == first and os.sep not in first and not Path(first).exists():
            near = difflib.get_close_matches(first, self.forms, 1)
            if near:
                raise click.UsageError(
                    f"No {self.thing} {first!r} here, and no form of {ctx.info_name} is called so. "
                    f"Did you mean {near[0]!r}? (Its forms: {', '.join(self.forms)}.)",
                    ctx,
                )
        return super().parse_args(ctx, args)


PathArgument = click.Path(path_type=Path)


class StorePlace(click.Path):
    """A store: a path, or a URL, which stays a string."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Take URLs as they are."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


class OutFolder(click.Path):
    """A folder that a command will write; that it can is found out before any work."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Check it."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_writable(path)
        return path


class OutStore(OutFolder):
    """A store that a command will write: a folder, or a URL, which stays a string."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Check it."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


class OutFile(OutFolder):
    """The same for a file, whose folder must exist."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Check its folder."""
        path = Path(value)
        super().convert(path.parent, param, ctx)
        return path


def all_of(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in the order given."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


version_option = click.version_option(__version__, prog_name="ERA Cache")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
device_option = click.option(
    "--device", help="Torch device, such as cpu or cuda:0.  [default: cuda where there is one]"
)


def index_option(what: str) -> Callable[[Command], Command]:
    """The option for searching a large corpus approximately; ``what`` says how that is told."""
    return click.option(
        "--index",
        type=click.Choice(["exact", "ivf", "hnsw", "pq"]),
        default="exact",
        help=f"Search all documents, or a FAISS index of a large corpus; {what}.",
    )


check_option = click.option(
    "--check/--no-check",
    default=True,
    help="Compare every stored segment with its SHA-256 first.",
)
overwrite_option = click.option(
    "--overwrite",
    is_flag=True,
    help="Replace what the folder holds of other data, and results that would be lost.",
)
count = click.IntRange(min=1)
seed_number = click.IntRange(0, 2**63 - 1)


def percent(value: str) -> float:
    """Read a share given in percent: ``20`` and ``20%`` are 0.2; below one only with the sign."""
    try:
        share = float(value.rstrip("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is not a percentage from 0 to 100.")
    if 0 < share < 0.01 and not value.endswith("%"):
        raise click.BadParameter(
            f"{value!r} is read as percent. Did you mean {10_000 * share:g}? (Less than one in a "
            f"hundred is written {value}%.)"
        )
    return round(share, 6)


def percent_text(share: float) -> str:
    """A share as ``percent`` reads it."""
    return f"{100 * share:g}" + ("%" if 0 < share < 0.01 else "")


def finite(_context: Any, _parameter: Any, value: float | None) -> float | None:
    """Refuse NaN and infinity, which click takes for numbers."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


def say(text: str = "", *, styled: bool = False) -> None:
    """Print a result for people on stdout; control characters and direction marks are escaped.

    Args:
        text: one or several lines.
        styled: whether all texts in it have been made printable, and escapes in it are ours.
    """
    click.echo(text if styled else escaped(text))


def note(text: str) -> None:
    """Tell the user something on stderr."""
    click.echo(escaped(text), err=True)


def echo_json(value: Any) -> None:
    """Print a result for machines on stdout, in ASCII: texts stay what they are, unobeyed."""
    click.echo(json.dumps(value, indent=1, default=str))


def echo_table(header: list[str], rows: list[list[str]]) -> None:
    """Print an aligned table on stdout: words at the left, columns of numbers at the right."""
    from era_cache.report.terminal import table_lines

    right = [i for i in range(1, len(header)) if all(_numeric(row[i]) for row in rows)]
    say("\n".join(table_lines([header, *rows], right=right)))


def _numeric(cell: str) -> bool:
    return not cell or cell.lstrip("+-<~ ")[:1].isdigit() or not cell.strip("+-")
