"""Errors of the forecaster, each explained in one line.

ModelError
├── InvalidValues             values that are no demand: NaN, infinite, negative, wrong shape
├── HistoryTooShort           too few buckets or no demand at all to train or evaluate on
├── IncompatibleCheckpoint    a checkpoint of other features, another format or another shape
├── CorruptCheckpoint         a checkpoint that is truncated, incomplete or holds NaN weights
└── UnknownModel              a model id that the registry does not hold
"""


class ModelError(Exception):
    """Root of all errors of the forecaster. Operator: read the one line it prints."""

    retriable = False


class InvalidValues(ModelError, ValueError):
    """Values that cannot be demand. Operator: the text says which; look where they came from."""


class HistoryTooShort(ModelError, ValueError):
    """Not enough history. Operator: give more buckets, or a shorter horizon."""


class IncompatibleCheckpoint(ModelError, ValueError):
    """A checkpoint this build cannot serve. Operator: train a new one; the champion stays."""


class CorruptCheckpoint(ModelError, ValueError):
    """A damaged checkpoint. Operator: restore the file or train anew; the champion stays."""


class UnknownModel(ModelError, LookupError):
    """The registry holds no such model. Operator: `surgecast models list` shows what it holds."""
