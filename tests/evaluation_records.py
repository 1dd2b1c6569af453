"""Evaluation records for tests of the report: a small one, a large one, a hostile one."""

from __future__ import annotations

from typing import Any

import numpy as np

DOMAINS = ("finance", "biomedical", "web search", "scientific", "legal")
NAMES = ("small", "linear", "era", "era-dual", "shipped", "large")
HOSTILE = (
    '<script>alert("x")</script>"><img src=x onerror=\'alert(1)\'>',
    "--></style></title></pre></svg><b>",
    '$\\frac{broken$ &amp; #010203 id="a" %\\end{document} =1|`*_{}[]~^\\',
)


def plain(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.018, "high": mean + 0.018, "sd": None}


def compared(mean: float, difference: float, p: float, p_holm: float | None) -> dict[str, Any]:
    return {
        **plain(mean),
        "difference": difference,
        "difference_low": difference - 0.013,
        "difference_high": difference + 0.014,
        "p": p,
        "p_holm": p_holm,
        "effect": 4 * difference,
    }


def small_record() -> dict[str, Any]:
    """One collection, one fit, with every section that such a record can have but the matrix."""
    return {
        "format": "era-evaluation",
        "version": 2,
        "title": "Evaluation on fiqa",
        "protocol": "adapter",
        "primary": "nDCG@10",
        "measures": ["nDCG@10", "R@100"],
        "chosen": "era-dual",
        "choice_reason": "Best nDCG@10 on the held-out labels.",
        "collections": [
            {
                "name": "fiqa",
                "version": "a1b2c3d4e5f6",
                "domain": "finance",
                "documents": 57638,
                "queries": 6648,
                "test": 1190,
            }
        ],
        "split": {
            "rule": "paper",
            "seeds": [13],
            "labels": 0.2,
            "train": 476,
            "validation": 120,
            "test": 1190,
        },
        "encoders": {"query": "small-en (d41c7b20aa11)", "document": "large-en (3f9c0e1a77bc)"},
        "candidates": [
            {
                "name": "small",
                "kind": "the small encoder in its own index",
                "validation": 0.5284,
                "measures": {"nDCG@10": plain(0.5302), "R@100": plain(0.7811)},
            },
            {
                "name": "linear",
                "kind": "ridge map",
                "validation": 0.5342,
                "measures": {
                    "nDCG@10": compared(0.5364, 0.0062, 0.07, 0.21),
                    "R@100": compared(0.7932, 0.0121, 0.01, 0.03),
                },
            },
            {
                "name": "era-dual",
                "kind": "two-headed adapter",
                "validation": 0.6113,
                "measures": {
                    "nDCG@10": compared(0.6073, 0.0771, 0.0001, 0.0003),
                    "R@100": compared(0.8574, 0.0763, 0.0001, 0.0003),
                },
            },
            {
                "name": "large",
                "kind": "the large encoder on both sides: a full re-encode",
                "validation": None,
                "measures": {
                    "nDCG@10": compared(0.6411, 0.1109, 0.0001, 0.0003),
                    "R@100": compared(0.8911, 0.11, 0.0001, 0.0003),
                },
            },
        ],
        "curve": [
            {
                "labels": share,
                "train": train,
                "candidates": {"small": plain(0.5302), "era-dual": plain(mean)},
            }
            for share, train, mean in [(0.05, 119, 0.5555), (0.1, 238, 0.5816), (0.2, 476, 0.6073)]
        ],
        "gains": {
            "candidate": "era-dual",
            "rows": [gain("fiqa", "finance", 1190, 0.5302, 0.0771, 0.0001, 0.019)],
        },
        "queries": _queries(np.random.default_rng(1), ("fiqa",), "era-dual", 1190),
        "scores": _scores(("small", "era-dual"), 1190),
        "costs": [{"what": "training, all candidates", "value": "7.1 s"}],
        "commands": ["era-embed --role query toy", "era-fit a b \\\n  --seed 13"],
        "notes": ["Two test queries score 0."],
        "environment": {"era_cache": "0.1.0", "torch": "2.6.0"},
        "inputs": [{"what": "collection fiqa", "value": "a1b2c3d4e5f6" * 5}],
        "configuration": {"seed": 13, "labels": 0.2, "recipe": {"name": "era", "steps": [0.5, 2]}},
        "int8": {
            name: {
                "nDCG@10": {
                    "mean": mean,
                    "difference": -0.0003,
                    "difference_low": -0.001,
                    "difference_high": 0.0004,
                    "p": 0.5,
                }
            }
            for name, mean in (("small", 0.53), ("era-dual", 0.607))
        },
    }


def gain(
    collection: str,
    domain: str,
    queries: int,
    baseline: float,
    difference: float,
    p: float,
    detectable: float,
) -> dict[str, Any]:
    return {
        "collection": collection,
        "domain": domain,
        "queries": queries,
        "baseline": baseline,
        "mean": baseline + difference,
        "difference": difference,
        "low": difference - 0.7 * detectable,
        "high": difference + 0.72 * detectable,
        "p": p,
        "p_holm": min(1.0, 3 * p),
        "effect": difference / 0.25,
        "detectable": detectable,
        "large": baseline + 1.4 * abs(difference) + 0.01,
    }


def large_record(collections: int = 20, points: int = 2000) -> dict[str, Any]:
    """Leave-one-collection-out over 20 collections, 4 shares of the labels, 5 seeds."""
    rng = np.random.default_rng(7)
    names = [f"collection-{chr(97 + i % 26)}{i}" for i in range(collections)]
    domains = [DOMAINS[i % len(DOMAINS)] for i in range(collections)]
    tests = (30 * 1.28 ** np.arange(collections) % 2900 + 25).astype(int).tolist()
    base = rng.uniform(0.25, 0.75, collections)
    lift = dict(zip(NAMES, (0.0, 0.006, 0.033, 0.041, 0.04, 0.09), strict=True))
    means = {
        name: np.clip(
            base + lift[name] + rng.normal(0, 0.35 * lift[name] + 1e-9, collections), 0, 1
        )
        for name in NAMES
    }
    measures = ["nDCG@10", "R@100", "RR", "AP"]

    def estimate(name: str, shift: float, share: float = 1.0) -> dict[str, Any]:
        mean = float(base.mean() + share * lift[name] + shift)
        seeds = {"sd": 0.0021 + 0.001 * lift[name]}
        if name == "small":
            return plain(mean) | seeds
        p = 0.0001 if lift[name] > 0.02 else 0.03
        return compared(mean, share * lift[name], p, min(1.0, 2 * p)) | seeds

    gains = []
    for i, name in enumerate(names):
        difference = float(means["shipped"][i] - means["small"][i])
        noise = 0.9 / tests[i] ** 0.5
        p = min(1.0, max(0.0001, 2 - 2 * abs(difference) / noise))
        gains.append(gain(name, domains[i], tests[i], float(base[i]), difference, p, noise))
    left_out = [f"all but {name}" for name in names]
    values = base + rng.normal(0.03, 0.02, (collections, collections))
    return {
        **small_record(),
        "title": f"Leave-one-collection-out over {collections} collections",
        "protocol": "leave-one-domain-out",
        "measures": measures,
        "chosen": "shipped",
        "choice_reason": "In each fit, held-out labels chose what ships.",
        "collections": [
            {
                "name": name,
                "version": f"{i:012x}",
                "domain": domain,
                "documents": 1000 * (i + 3),
                "queries": 5 * test,
                "test": test,
            }
            for i, (name, domain, test) in enumerate(zip(names, domains, tests, strict=True))
        ],
        "split": {
            "rule": "paper",
            "seeds": [42, 43, 44, 45, 46],
            "labels": 0.2,
            "train": 5210,
            "validation": 1302,
            "test": sum(tests),
        },
        "candidates": [
            {
                "name": name,
                "kind": f"what {name} is, in words",
                "validation": None if name == "large" else float(base.mean() + lift[name]),
                "measures": {m: estimate(name, 0.06 * i) for i, m in enumerate(measures)},
            }
            for name in NAMES
        ],
        "curve": [
            {
                "labels": share,
                "train": int(26000 * share),
                "candidates": {name: estimate(name, 0.0, full) for name in NAMES},
            }
            for share, full in ((0.05, 0.4), (0.1, 0.7), (0.2, 1.0), (0.4, 1.2))
        ],
        "gains": {"candidate": "shipped", "rows": gains},
        "by_collection": [
            {
                "collection": name,
                "domain": domain,
                "queries": test,
                "candidates": {one: float(means[one][i]) for one in NAMES},
            }
            for i, (name, domain, test) in enumerate(zip(names, domains, tests, strict=True))
        ],
        "by_domain": [
            {
                "domain": domain,
                "collections": sum(other == domain for other in domains) or collections,
                "queries": sum(tests),
                "candidates": {one: float(means[one].mean() + 0.01 * i) for one in NAMES},
            }
            for i, domain in enumerate([*dict.fromkeys(domains), "all domains"])
        ],
        "matrix": {
            "candidate": "shipped",
            "rows": left_out,
            "columns": names,
            "values": [[float(value) for value in row] for row in values],
            "baseline": [float(value) for value in base],
        },
        "queries": _queries(rng, names, "shipped", sum(tests), points),
        "scores": _scores(("small", "shipped"), sum(tests)),
        "configuration": {f"option-{i}": [i, 0.5, "text"] for i in range(40)},
        "inputs": [
            {"what": f"collection {name}", "value": f"{i:064x}"} for i, name in enumerate(names)
        ],
    }


def _queries(
    rng: np.random.Generator, names: Any, candidate: str, number: int, points: int = 400
) -> dict[str, Any]:
    before = rng.beta(0.7, 0.7, points - 3).round(3)
    after = np.clip(before + rng.normal(0.04, 0.2, points - 3), 0, 1).round(3)
    counts = rng.integers(1, 5, points - 3)
    drawn = [[float(x), float(y), int(n)] for x, y, n in zip(before, after, counts, strict=True)]
    # What real measures have most of: nothing found, all found.
    drawn += [
        [0.0, 0.0, number // 9 + 1],
        [1.0, 1.0, number // 6 + 1],
        [0.0, 1.0, number // 60 + 1],
    ]
    sides = {"better": 0, "equal": 0, "worse": 0}
    for x, y, n in drawn:
        sides["better" if y > x else "worse" if y < x else "equal"] += n

    def extreme(i: int, sign: int) -> dict[str, Any]:
        change = sign * (1.0 - i / 12)
        return {
            "collection": names[i % len(names)],
            "query": f"query-{i}-{'win' if sign > 0 else 'loss'}",
            "text": f"What is the {i}th example of a question that someone may ask of a bank?",
            "baseline": 0.0 if sign > 0 else 1.0,
            "value": change if sign > 0 else 1.0 + change,
            "difference": change,
        }

    return {
        "candidate": candidate,
        **sides,
        "points": drawn,
        "wins": [extreme(i, 1) for i in range(10)],
        "losses": [extreme(i, -1) for i in range(10)],
    }


def _scores(names: Any, queries: int) -> list[dict[str, Any]]:
    edges = np.linspace(-1.0, 1.0, 81)
    centres = (edges[:-1] + edges[1:]) / 2

    def counts(mean: float, sd: float, number: int) -> list[int]:
        density = np.exp(-0.5 * ((centres - mean) / sd) ** 2)
        return [int(n) for n in (number * density / density.sum()).round()]

    return [
        {
            "candidate": name,
            "edges": [float(edge) for edge in edges],
            "positives": counts(0.55 + 0.12 * i, 0.12, 3 * queries),
            "hardest": counts(0.5 + 0.02 * i, 0.09, queries),
            "others": counts(0.12, 0.1, 50_000 * queries),
        }
        for i, name in enumerate(names)
    ]


def hostile_record(text: str) -> dict[str, Any]:
    """A record of four collections in which every text, and every name, begins with ``text``."""
    record = large_record(4, 30)
    names = {*NAMES, *record["measures"], *record["configuration"], *record["environment"]}
    del record["int8"]["era-dual"]
    for row in record["gains"]["rows"]:
        row["large"] = None

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            # A gain has a field that is called as a candidate is.
            named = names - {"large"} if "detectable" in value else names
            return {text + k if k in named else k: spoil(inner) for k, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return text + value if isinstance(value, str) else value

    return spoil(record) | {"format": record["format"]}
