"""ERA Cache: encode once, then fit retrieval adapters on stored tensors in seconds."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
