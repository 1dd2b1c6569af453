"""The precision that is taken: the fastest of those that give the same vectors, by trying."""

from __future__ import annotations

import numpy as np
import pytest
from beir_folder import beir_of
from command_case import done, run
from planted import planted_texts
from tiny_model import build_tiny

from era_cache.cli import embed
from era_cache.collection.records import RoleTexts
from era_cache.encode import precision_choice
from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.precision_choice import choose_precision
from era_cache.store.store import Store
from era_cache.types import Role

TEXTS = RoleTexts([str(n) for n in range(5)], ["a b", "c", "d a", "b", "a c d"], None)


@pytest.fixture
def model(tmp_path) -> str:
    weights = np.random.default_rng(0).standard_normal((5, 16)).astype("f4")
    return str(build_tiny(tmp_path / "tiny", weights))


def seconds(monkeypatch, **of: float) -> list[str]:
    """Let each precision take some time; what was tried comes back."""
    timed, tried = precision_choice._timed, []

    def taking(encoder, texts, role):
        vectors, _ = timed(encoder, texts, role)
        precision = encoder.spec.identity["precision"]
        tried.append(precision)
        return vectors, of[precision]

    monkeypatch.setattr(precision_choice, "_timed", taking)
    return tried


def chosen(model: str, texts: RoleTexts = TEXTS, store: Store | None = None, device="cpu"):
    return choose_precision(model, EncoderSettings(device=device), texts, Role.DOCUMENT, store)


@pytest.mark.parametrize(
    ("took", "precision"), [(0.3, "bfloat16"), (0.9, "float32"), (3.0, "float32")]
)
def test_only_what_is_clearly_faster_is_taken(model, monkeypatch, took, precision) -> None:
    tried = seconds(monkeypatch, float32=1.0, bfloat16=took)
    choice = chosen(model)
    assert choice.precision == choice.encoder.spec.identity["precision"] == precision
    assert tried == ["float32", "bfloat16"]
    assert f"bfloat16 {1 / took:.1f} times as fast, cosines within" in choice.reason


def test_other_vectors_are_not_taken_however_fast(model, monkeypatch) -> None:
    seconds(monkeypatch, float32=1.0, bfloat16=0.1)
    monkeypatch.setattr(precision_choice, "TOLERANCE", 1e-9)
    assert chosen(model).precision == "float32"


def test_vectors_that_cannot_be_used_are_infinitely_far() -> None:
    one = np.ones((2, 3), np.float32)
    for bad in (np.nan, np.inf):
        other = one.copy()
        other[1, 1] = bad
        assert precision_choice._distance(one, other) == float("inf")
    other = one.copy()
    other[1] = 0
    assert precision_choice._distance(one, other) == float("inf")
    assert precision_choice._distance(one, 2 * one) == pytest.approx(0, abs=1e-12)


def test_without_texts_nothing_is_tried(model, monkeypatch) -> None:
    tried = seconds(monkeypatch)
    assert chosen(model, RoleTexts([], [], None)).precision == "float32"
    assert tried == []


def test_what_the_store_has_goes_before_and_others_are_named(model, tmp_path, monkeypatch) -> None:
    beir_of(tmp_path, planted_texts(n_queries=10))
    words = [tmp_path / "beir", "--store", tmp_path / "store", "--device", "cpu"]
    words += ["--query-model", model, "--doc-model", model]
    done(run(embed.main, *words, "--precision", "bfloat16"))
    tried = seconds(monkeypatch)
    choice = chosen(model, store=Store.open(tmp_path / "store"))
    assert (choice.precision, tried) == ("bfloat16", [])
    again = done(run(embed.main, *words, "--precision", "auto"))
    assert "none is encoded twice" in again.output
    assert "Nothing to encode" in again.output
    other = done(run(embed.main, *words, "--precision", "float32"))
    assert "rows of it in bfloat16; float32 is encoded anew" in other.output
