"""Every error that ERA Cache raises on purpose.

    EraError                      the command line prints it without a traceback and exits 1
    ├── InputError                a user's file or option is wrong (names file and line)
    ├── FormatError               a file of ours is damaged, hostile or of an unknown version
    │   └── NewerError            it is whole, as far as can be told, but of a newer version
    ├── StoreError                a store cannot be read or written, or lacks what was asked for
    ├── EncoderError              a model cannot be loaded, or gave unusable vectors
    ├── FingerprintError          vectors of one encoder were offered where another is expected
    └── FitError                  an adapter cannot be fitted from what was given

Programming mistakes (a wrong type, a negative count) stay ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations

__all__ = [
    "EncoderError",
    "EraError",
    "FingerprintError",
    "FitError",
    "FormatError",
    "InputError",
    "NewerError",
    "StoreError",
]


class EraError(Exception):
    """Base of all errors that a user can cause and mend; the message says how."""


class InputError(EraError):
    """A file or an option given by the user is wrong."""


class FormatError(EraError):
    """A file of ERA Cache's own formats is damaged, hostile or from a newer version."""


class NewerError(FormatError):
    """A file of ERA Cache's own formats is of a newer version; a newer ERA Cache reads it."""


class StoreError(EraError):
    """A store cannot be read or written, or does not hold what was asked for."""


class EncoderError(EraError):
    """A model cannot be loaded, or returned vectors that must not be stored."""


class FingerprintError(EraError):
    """Vectors come from another encoder than the one that is expected."""


class FitError(EraError):
    """There is not enough to fit an adapter from."""
