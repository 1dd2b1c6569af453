"""Options of models behind an address, and what is said of their price."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import Command, all_of, count, echo_table, note, say
from era_cache.cli.stores import found_store

if TYPE_CHECKING:
    from era_cache.collection.records import TextCollection
    from era_cache.encode.config import EmbedConfig
    from era_cache.encode.encoder import Encoder
    from era_cache.encode.plan import PlannedRows
    from era_cache.encode.service import Budget, ServiceSettings
    from era_cache.types import Where

__all__ = [
    "bill",
    "mention_bill",
    "planned",
    "service_options",
    "service_settings",
    "side_options",
]

_positive = click.FloatRange(min=0, min_open=True)


def side_options(side: str) -> Callable[[Command], Command]:
    """The options of one model behind an address."""
    return all_of(
        click.option(
            f"--{side}-key-variable",
            metavar="NAME",
            default="OPENAI_API_KEY",
            help=f"Environment variable with the key of the {side} model's server (openai:…).",
        ),
        click.option(
            f"--{side}-price",
            type=_positive,
            metavar="X",
            help=f"Price of a million tokens of the {side} model, for --dry-run and --max-cost.",
        ),
    )


service_options = all_of(
    click.option(
        "--dry-run",
        is_flag=True,
        help="Only say what would be encoded: texts, tokens (about), requests, price.",
    ),
    click.option(
        "--max-cost",
        type=_positive,
        metavar="X",
        help="Stop before more than this is spent on models with a price.",
    ),
    click.option(
        "--requests-in-flight",
        type=count,
        metavar="N",
        default=16,
        help="Requests that are open at once, for models behind an address.",
    ),
    click.option(
        "--requests-per-minute", type=_positive, metavar="N", help="At most so many requests."
    ),
    click.option(
        "--tokens-per-minute",
        type=_positive,
        metavar="N",
        help="At most about so many tokens; their number is guessed by bytes.",
    ),
)


def service_settings(options: dict[str, Any], side: str, budget: Budget) -> ServiceSettings:
    """How the model of one side is asked."""
    from era_cache.encode.service import ServiceSettings

    price = options[f"{side}_price"]
    if options["max_cost"] is not None and not (options["large_price"] or options["small_price"]):
        raise click.UsageError("--max-cost needs --large-price or --small-price.")
    return ServiceSettings(
        key_variable=options[f"{side}_key_variable"],
        in_flight=options["requests_in_flight"],
        requests_per_minute=options["requests_per_minute"],
        tokens_per_minute=options["tokens_per_minute"],
        price=price or 0.0,
        budget=budget,
    )


def bill(large: Encoder, small: Encoder) -> dict[str, dict[str, Any]]:
    """Requests, tokens and cost of the models behind an address, by side."""
    found = {}
    for side, encoder in (("large", large), ("small", small)):
        spent = encoder.bill() if hasattr(encoder, "bill") else {}
        if spent.get("requests"):
            found[side] = spent
    return found


def mention_bill(large: Encoder, small: Encoder) -> None:
    """Say what was asked of models behind an address."""
    for side, spent in bill(large, small).items():
        cost = f", {spent['cost']:,.4g} spent" if spent["cost"] else ""
        note(f"{side} model: {spent['requests']:,} requests, {spent['tokens']:,} tokens{cost}.")


def planned(
    store_path: Where,
    texts: TextCollection,
    log: TextCollection | None,
    encoders: tuple[Encoder, Encoder],
    config: EmbedConfig,
    *,
    whole: bool,
    quiet: bool,
    timed: bool = False,
) -> dict[str, Any]:
    """What a run would encode of a collection, printed unless ``quiet``."""
    from era_cache.encode.plan import plan_embedding

    there = found_store(store_path)
    parts = plan_embedding(
        there, texts, encoders=encoders, config=config, large_corpus=whole, log=log, timed=timed
    )
    if not quiet:
        _render_plan(parts, timed=timed)
    costs = [one.cost for one in parts if one.cost is not None]
    return {
        "dry_run": True,
        "collection": texts.name,
        "parts": [one._asdict() for one in parts],
        "cost": sum(costs) if costs else None,
    }


def _render_plan(parts: list[PlannedRows], *, timed: bool) -> None:
    costs = [one.cost for one in parts if one.cost is not None]

    def shown(number: float | None, form: str = ",") -> str:
        return "-" if number is None else format(number, form)

    rows = [
        [
            one.what,
            one.encoder,
            f"{one.rows:,}",
            f"{one.missing:,}",
            shown(one.tokens),
            shown(one.requests),
            shown(one.cost, ",.4g"),
            *([shown(one.seconds, ",.1f"), shown(one.bytes)] if timed else []),
        ]
        for one in parts
    ]
    head = ["part", "encoder", "texts", "to encode", "tokens", "requests", "cost"]
    echo_table([*head, *(["seconds here", "bytes"] if timed else [])], rows)
    if costs:
        say(f"Cost: about {sum(costs):,.4g}. Tokens are counted by their bytes, not by the server.")
    say("Nothing was stored." if timed else "Nothing was encoded or written (--dry-run).")
