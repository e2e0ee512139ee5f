"""Errors of the forecaster.

ModelError
├── InvalidValues             invalid demand: NaN, infinite, negative, wrong shape
├── HistoryTooShort           too few buckets, or no demand, to train or evaluate on
├── IncompatibleCheckpoint    a checkpoint of other features, format or shape
├── CorruptCheckpoint         a checkpoint that is truncated, incomplete or contains NaN
├── UnknownModel              a model id that is not in the registry
├── OutOfMemory               a training that does not fit into the memory
└── MissingLibrary            a foundation model whose library is not installed
"""


class ModelError(Exception):
    """Root of all errors of the forecaster. Operator: read its one-line message."""


class InvalidValues(ModelError, ValueError):
    """Values that cannot be demand. Operator: the text names them; check their source."""


class HistoryTooShort(ModelError, ValueError):
    """Not enough history. Operator: give more buckets, or a shorter horizon."""


class IncompatibleCheckpoint(ModelError, ValueError):
    """A checkpoint this build cannot serve. Operator: train a new one; the champion stays."""


class CorruptCheckpoint(ModelError, ValueError):
    """A damaged checkpoint. Operator: restore the file or retrain; the champion stays."""


class UnknownModel(ModelError, LookupError):
    """The model is not in the registry. Operator: `surgecast models list` shows all models."""


class OutOfMemory(ModelError, MemoryError):
    """Even a smaller training does not fit. Operator: more memory, fewer series or lanes."""


class MissingLibrary(ModelError, ImportError):
    """A library of an extra is missing. Operator: install the extra that the text names."""
