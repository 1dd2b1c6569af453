"""Loading a sentence-transformers model from files, in a precision that is said outright.

In: a folder whose files are hashed. Out: the library's model, ready to encode.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from era_cache.encode.encoder import EncoderSettings
from era_cache.errors import EncoderError

__all__ = ["EIGHT_BIT", "cuda_devices", "load_model", "quiet_libraries"]

EIGHT_BIT = "8bit"
"""The precision whose linear layers have 8-bit weights (LLM.int8); all else is float16."""


def load_model(folder: Path, settings: EncoderSettings) -> Any:
    """Load a model.

    Raises:
        EncoderError: it cannot be loaded, or a library that its precision needs is missing.
    """
    with quiet_libraries():
        import torch
        from sentence_transformers import SentenceTransformer

        # Said outright: transformers 5 would otherwise take the configuration's dtype, transformers
        # 4 float32, and the same model would give other vectors.
        eight_bit = settings.precision == EIGHT_BIT
        dtype = torch.float16 if eight_bit else getattr(torch, settings.precision)
        key = "dtype" if int(version("transformers").split(".")[0]) >= 5 else "torch_dtype"
        chosen = settings.attention
        attention = {"attn_implementation": chosen} if chosen else {}
        weights = _eight_bit_weights() if eight_bit else {}
        try:
            model = SentenceTransformer(
                str(folder),
                device=settings.device or ("cuda" if torch.cuda.is_available() else "cpu"),
                truncate_dim=settings.truncate_dim,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={key: dtype, **attention, **weights},
            )
            model = model if eight_bit else model.to(dtype)
        # Loading runs other libraries' code over arbitrary files: it can fail in any way, and
        # each way means the same to the user.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise EncoderError(
                f"{folder}: the model cannot be loaded: {reason}. Check that the folder holds a "
                "complete sentence-transformers model."
            ) from error
    return model.eval()


def _eight_bit_weights() -> dict[str, Any]:
    """What makes transformers load linear layers with 8-bit weights."""
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise EncoderError(
            f"--precision {EIGHT_BIT} needs {' and '.join(missing)}: pip install 'era-cache[8bit]'."
        )
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers' loading bars and notes off the terminal; ours are enough."""
    before = os.environ.get("TRANSFORMERS_VERBOSITY")
    os.environ["TRANSFORMERS_VERBOSITY"] = before or "error"
    try:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        yield
    finally:
        if before is None:
            del os.environ["TRANSFORMERS_VERBOSITY"]


def cuda_devices() -> list[str]:
    """Names of the GPUs that torch sees."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
