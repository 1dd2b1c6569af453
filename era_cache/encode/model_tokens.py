"""Tokens of texts as a sentence-transformers model reads them.

In: a loaded model and rendered texts. Out: how many tokens each has, and how many are read.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from era_cache.encode.token_budget import shortened
from era_cache.errors import EncoderError
from era_cache.types import Role

__all__ = ["TokenCounter", "reader_of"]


def reader_of(model: Any, role: Role) -> Any:
    """The module that reads the texts of a role: the first, of a router the first of its route."""
    module = model[0]
    while hasattr(module, "sub_modules"):
        route = module._resolve_route(task=role.value, modality="text")
        module = module.sub_modules[route][0]
    return module


class TokenCounter:
    """Counts tokens of one role, by a copy of the model's tokenizer.

    That of transformers cannot be shared with the thread that encodes, since each call sets its
    truncation and padding. Several threads may count; they take turns.

    Args:
        model: a loaded ``SentenceTransformer``.
        role: of the texts.
        folder: of the model's files, for messages.

    Raises:
        EncoderError: the model has no tokenizer, or one that knows no words.
    """

    def __init__(self, model: Any, role: Role, folder: Path) -> None:
        reader = reader_of(model, role)
        tokenizer = getattr(reader, "tokenizer", None)
        if tokenizer is None or _knows_no_words(tokenizer):
            raise EncoderError(
                f"{folder}: no tokenizer for a {role.value}. Add its tokenizer files to the folder."
            )
        found = getattr(reader, "max_seq_length", None)
        self.limit = None if found is None or math.isinf(found) else int(found)
        """Tokens that the model reads; None for any number."""
        self._cuts_at_end = getattr(tokenizer, "truncation_side", "right") == "right"
        # That of static embeddings is set by nobody.
        shared = hasattr(tokenizer, "encode_batch")
        self._tokenizer = tokenizer if shared else copy.deepcopy(tokenizer)
        self._turn = threading.Lock()

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of whole texts, special ones included where the model reads them."""
        with self._turn:
            return _lengths(self._tokenizer, texts)

    def measured(self, texts: Sequence[str]) -> tuple[Sequence[str], list[int]]:
        """Texts, very long ones without what the model does not read, and their tokens.

        Of a text that was cut the number is some above the limit.
        """
        if self.limit is None or not self._cuts_at_end:
            return texts, self.lengths(texts)
        return shortened(texts, self.limit, self.lengths)


def _lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, special ones included where a model reads them."""
    if hasattr(tokenizer, "encode_batch"):  # of static embeddings
        found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in found]
    if not callable(tokenizer):  # a list of words
        return [len(tokenizer.tokenize(text)) for text in texts]
    read = tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)
    return [len(ids) for ids in read["input_ids"]]


def _knows_no_words(tokenizer: Any) -> bool:
    """Whether a tokenizer has special tokens only.

    transformers makes up such a one where the tokenizer's files are missing, and every text gets
    the same vector.
    """
    special = getattr(tokenizer, "all_special_ids", None)
    return special is not None and len(tokenizer) <= len(special)
