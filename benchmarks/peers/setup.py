"""Make the peers' environments: ``python -m benchmarks.peers.setup [NAME ...]``.

They lie in ``$XDG_CACHE_HOME/era-cache/peers`` (``~/.cache`` where the variable is not set). One
that is complete stays as it is; one that cannot be made leaves pip's message there, and its peers
report that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

__all__ = ["ENVIRONMENTS", "environment_dir", "environment_error", "install"]

# A bare "torch" would bring CUDA along; this release is offered as a CPU build.
_TORCH = ("torch==2.13.0", "numpy==2.4.6")
ENVIRONMENTS = {
    "linear": ("aecp==0.2.1", "scikit-learn==1.9.1", "scipy==1.17.1", "numpy==2.4.6"),
    "llamaindex": (
        "llama-index-finetuning==0.4.2",
        "llama-index-embeddings-adapter==0.4.1",
        "llama-index-core==0.14.25",
        "sentence-transformers==6.2.0",
        "transformers==5.24.0",
        # It asks for >=1.7, but its import fails from 2 on.
        "mistralai==1.12.4",
        *_TORCH,
    ),
    "torch": _TORCH,
}
"""What pip installs into each environment."""


def environment_dir(name: str) -> Path:
    """Return the folder of an environment; it need not exist yet."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache_home.is_absolute():
        cache_home = Path.home() / ".cache"
    return cache_home / "era-cache" / "peers" / name


def _stamp(name: str) -> Path:
    return environment_dir(name) / "requirements.txt"


def _failure(name: str) -> Path:
    return environment_dir(name) / "failure.txt"


def environment_error(name: str) -> str | None:
    """Say why an environment cannot be used, or None if it can."""
    if _stamp(name).exists() and _stamp(name).read_text() == "\n".join(ENVIRONMENTS[name]):
        return None
    if _failure(name).exists():
        return f"pip could not install it: {_failure(name).read_text()}"
    return f"no environment: run `python -m benchmarks.peers.setup {name}`"


def install(name: str) -> str:
    """Make an environment unless it is complete; returns what was done, in a sentence."""
    folder = environment_dir(name)
    if environment_error(name) is None:
        return f"{name}: complete already"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [*pip, "install", "--quiet", *ENVIRONMENTS[name]], capture_output=True, text=True
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        _failure(name).write_text("\n".join(errors or done.stderr.splitlines()[-5:]))
        return f"{name}: FAILED: {_failure(name).read_text()}"
    _stamp(name).write_text("\n".join(ENVIRONMENTS[name]))
    return f"{name}: installed {', '.join(ENVIRONMENTS[name])}"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(ENVIRONMENTS)))
def main(names: tuple[str, ...]) -> None:
    """Make the environments named, or all; exits with 1 if one cannot be made."""
    for name in names or tuple(ENVIRONMENTS):
        click.echo(install(name))
    sys.exit(any(environment_error(name) for name in names or tuple(ENVIRONMENTS)))


if __name__ == "__main__":
    main()
