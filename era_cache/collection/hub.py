"""Files of data sets on the Hugging Face hub, fetched once into the hub's own cache.

In: a repository's name. Out: names of its files, or a folder that holds some of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from era_cache.errors import InputError

__all__ = ["hub_files", "hub_snapshot"]


def hub_files(repository: str) -> list[str]:
    """Names of all files of a data set.

    Raises:
        InputError: the hub cannot be reached, or has no such data set.
    """
    try:
        found: list[str] = _library().HfApi().list_repo_files(repository, repo_type="dataset")
    except Exception as error:
        raise _failed(repository, error) from error
    return found


def hub_snapshot(repository: str, *patterns: str) -> Path:
    """A folder with a data set's files, of which those are fetched that are not there yet.

    Args:
        repository: ``OWNER/NAME``.
        patterns: of the files wanted, such as ``corpus/*``; none for all.

    Raises:
        InputError: the hub cannot be reached, or has no such data set.
    """
    try:
        folder: str = _library().snapshot_download(
            repository, repo_type="dataset", allow_patterns=list(patterns) or None
        )
    except Exception as error:
        raise _failed(repository, error) from error
    return Path(folder)


def _library() -> Any:
    import huggingface_hub

    return huggingface_hub


def _failed(repository: str, error: Exception) -> InputError:
    # Networks and the hub fail in many ways, and each means the same to the user.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputError(
        f"{repository}: cannot be fetched from the hub: {reason}. A snapshot on this machine does "
        "as well; see docs/collections.md."
    )
