"""What candidates there are: every name, what it stands for, and what it reads.

In: nothing. Out: tables by name; whatever lists, shows or fits candidates takes them from here.
"""

from __future__ import annotations

__all__ = [
    "CANDIDATES",
    "DEFAULT",
    "FUSED",
    "TRAINED",
    "UNTRAINED",
    "VIEWS_READ",
    "described",
    "fused_name",
    "unfused_name",
]

CANDIDATES = {
    "small": "the small encoder's own query: today's index as it is",
    "aligned": "the large query through the label-free map",
    "era-zero": "small and large query together, without labels",
    "era": "aligned, then trained with labels (large query only)",
    "era-dual": "small and large query together, trained with labels",
    "small+": "the small query alone, trained with labels",
    "paper": "the published recipe (large query only)",
}
"""Name to description, in the order in which they are shown."""
DEFAULT = tuple(name for name in CANDIDATES if name != "paper")
"""Those of the default recipe."""
UNTRAINED = ("small", "aligned", "era-zero")
"""Those that no label has a part in."""
TRAINED = ("era", "era-dual", "small+")
"""Those that the default recipe trains, in the order in which it does."""
VIEWS_READ = {
    "small": ("small",),
    "aligned": ("large",),
    "era-zero": ("small", "large"),
    "era": ("large",),
    "era-dual": ("small", "large"),
    "small+": ("small",),
    "paper": ("large",),
}
"""Name to the query views that its adapter joins, in this order."""
FUSED = ("small", "era-zero", "era", "era-dual")
"""Those that a first stage joins, where there is one."""


def fused_name(run: str, name: str) -> str:
    """Name of a candidate that a first stage joins, such as ``bm25+era-dual``."""
    return f"{run}+{name}"


def unfused_name(name: str) -> str:
    """Name of the candidate that a first stage joined; any other name is as it was."""
    run, _, base = name.partition("+")
    return base if run and base in FUSED else name


def described(name: str) -> str:
    """What a candidate stands for; empty for a name that is none."""
    base = unfused_name(name)
    if base != name:
        return f"{name.removesuffix(base)[:-1]} joined with {base}: cosine plus weighted score"
    return CANDIDATES.get(name, "")
