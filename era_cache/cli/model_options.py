"""The options of era-embed that are of one of the two models.

In: which of them. Out: options.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from era_cache.cli.common import Command, all_of, count
from era_cache.cli.service_options import side_options

__all__ = ["model_options"]

OWN = "  [default: the model's own]"


def model_options(side: str) -> Callable[[Command], Command]:
    """The options of one of the two models."""
    prompt = "Prompt of the {} model for {}; holds {{text}}, and {{instruction}} if wanted." + OWN
    return all_of(
        click.option(
            f"--{side}-query-template", metavar="TEMPLATE", help=prompt.format(side, "queries")
        ),
        click.option(
            f"--{side}-doc-template", metavar="TEMPLATE", help=prompt.format(side, "documents")
        ),
        click.option(
            f"--{side}-max-seq-length",
            type=count,
            metavar="N",
            help=f"Tokens of a text that the {side} model reads.{OWN}",
        ),
        click.option(
            f"--{side}-truncate-dim",
            type=count,
            metavar="N",
            help=f"Leading dimensions kept of the {side} model's vectors.  [default: all]",
        ),
        click.option(
            f"--{side}-revision",
            help=f"Commit or tag of the {side} model on the hub; of openai:… a word of your own.",
        ),
        side_options(side),
    )
