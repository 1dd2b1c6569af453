"""Static embeddings: the mean of a table's rows for each text, tokenised once and in bulk.

In: a sentence-transformers model of ``StaticEmbedding`` and maybe ``Normalize``. Out: its vectors,
the same as its own ``encode`` gives, without what that does for other models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from era_cache.types import FloatArray

__all__ = ["static_encoder"]


def static_encoder(model: Any) -> Callable[[Sequence[str]], FloatArray] | None:
    """A function from texts to (n, d) float32; None for models of other modules.

    Args:
        model: a loaded ``SentenceTransformer``.
    """
    import torch

    first, *others = list(model)
    tokenizer = getattr(first, "tokenizer", None)
    read: Any = getattr(tokenizer, "encode_batch_fast", getattr(tokenizer, "encode_batch", None))
    static = type(first).__name__ == "StaticEmbedding" and read is not None
    if not static or any(type(one).__name__ != "Normalize" for one in others):
        return None

    def encode(texts: Sequence[str]) -> FloatArray:
        tokens = [one.ids for one in read(list(texts), add_special_tokens=False)]
        ends = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(tokens), dtype=np.int64, count=int(ends[-1]))
        offsets = np.concatenate([[0], ends[:-1]])
        device = first.embedding.weight.device
        with torch.inference_mode():
            rows = first.embedding(
                torch.from_numpy(flat).to(device), torch.from_numpy(offsets).to(device)
            )
            features = {"sentence_embedding": rows}
            for module in others:
                features = module(features)
            found = features["sentence_embedding"][:, : model.truncate_dim]
        vectors: FloatArray = found.float().cpu().numpy()
        return vectors

    return encode
