"""What can go wrong with models. Imports no torch."""

from core.errors import OperationFailedError


class ModelError(OperationFailedError):
    """A checkpoint that cannot be used: which folder, what is wrong."""


class TrainingError(OperationFailedError):
    """A training run that cannot start or has gone wrong."""
