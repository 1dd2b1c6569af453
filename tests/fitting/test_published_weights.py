"""Published adapters: files of the same layout, and files of strangers."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from command_case import done, run

import era_cache
from era_cache.cli import embed, evaluate, fit
from era_cache.errors import FormatError
from era_cache.fitting.adapter_folder import load_config
from era_cache.fitting.published_weights import read_weights


class Published(torch.nn.Module):
    """The module whose state the paper's repository saves."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(d_in, d_out, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.proj(x), p=2, dim=-1)


def written(path, d_in: int = 384, d_out: int = 256) -> Published:
    torch.manual_seed(0)
    module = Published(d_in, d_out)
    torch.save(module.state_dict(), path)
    return module


def test_weights_are_read_and_map_as_the_module_does(tmp_path) -> None:
    module = written(tmp_path / "a.pt", 6, 4)
    adapter = read_weights(tmp_path / "a.pt")
    views = torch.nn.functional.normalize(torch.randn(9, 6), dim=1)
    got = adapter.apply({"large": views})
    torch.testing.assert_close(got, module(views).detach(), atol=1e-6, rtol=1e-5)
    half = {name: one.half() for name, one in module.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    assert read_weights(tmp_path / "half.pt").weight.dtype == torch.float32
    torch.save(module.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(tmp_path / "old.pt").weight, adapter.weight)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("was-here",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"proj.weight": torch.ones(2, 3)},
            "expected proj.weight and proj.bias, found proj.weight",
        ),
        ({"proj.weight": torch.ones(2, 3), "proj.bias": torch.ones(3)}, r"\(2, 3\) and \(3,\)"),
        ({"proj.weight": torch.ones(2), "proj.bias": torch.ones(2)}, "expected a weight"),
        ({"proj.weight": torch.ones(0, 3), "proj.bias": torch.ones(0)}, "expected a weight"),
        ({"proj.weight": torch.ones(2, 3) / 0, "proj.bias": torch.ones(2)}, "not finite"),
        ({"proj.weight": torch.ones(2, 3).int(), "proj.bias": torch.ones(2)}, "floating-point"),
        ({"proj.weight": [1.0], "proj.bias": torch.ones(2)}, "floating-point"),
        ([torch.ones(2)], "found list"),
        ({"proj.weight": Hostile(), "proj.bias": 1}, "no torch file of weights alone"),
        (torch.nn.Linear(2, 2), "no torch file of weights alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_files_that_are_no_adapters(tmp_path, content, message, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FormatError, match=message):
        read_weights(tmp_path / "a.pt")
    assert not (tmp_path / "was-here").exists()


def test_files_that_are_no_torch_files(tmp_path) -> None:
    path = tmp_path / "a.pt"
    written(path, 6, 4)
    whole = path.read_bytes()
    for data in (
        b"",
        b"text",
        pickle.dumps(Hostile()),
        whole[: len(whole) // 2],
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        b"PK\x03\x04" + bytes(100),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError):
            read_weights(path)
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[int(random.integers(len(whole)))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_weights(path)
        except FormatError:
            continue
        assert torch.isfinite(found.weight).all()
    link = tmp_path / "link.pt"
    link.symlink_to(path)
    with pytest.raises(FormatError):
        read_weights(link)


@pytest.mark.encoders
def test_an_imported_adapter_is_measured_and_served(toy, models, tmp_path) -> None:
    pair = ["--query-model", models["large"], "--doc-model", models["small"]]
    store, out, file = tmp_path / "store", tmp_path / "adapter", tmp_path / "published.pt"
    done(run(embed.main, toy, "--store", store, *pair))
    module = written(file)
    words = ["import-weights", file, *pair, "--out", out]
    found = json.loads(done(run(fit.main, *words, "--json")).stdout)
    assert found["dimensions"] == {"large": 384, "small": 256}
    encoder = era_cache.QueryEncoder(out, device="cpu")
    text = "tap drips at night"
    large = encoder.models().popitem() and encoder.encode([text])
    assert large.shape == (1, 256)
    alone = run(evaluate.main, store, out)
    assert alone.exit_code == 1
    assert "Import them again with --store" in alone.output
    words += ["--store", store, "--collection", "toy", "--overwrite"]
    done(run(fit.main, *words))
    assert load_config(out).fitted_on()[0].split.rule == "paper-exact"
    measured = json.loads(done(run(evaluate.main, store, out, "--json", "--device", "cpu")).stdout)
    assert "paper" in json.dumps(measured)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models["large"]), device="cpu")
    direct = module(torch.from_numpy(model.encode_query([text]))).detach().numpy()
    assert np.abs(encoder.encode([text]) - direct).max() < 1e-5
    written(file, 5, 4)
    wrong = run(fit.main, *words)
    assert wrong.exit_code == 1
    assert "maps 5 to 4 dimensions, but all-MiniLM-L6-v2 has 384" in wrong.output
    half = run(fit.main, *words[:-3])
    assert half.exit_code == 2
