"""What can go wrong with models. Imports no torch."""

from core.errors import FailedError


class ModelError(FailedError):
    """A checkpoint that cannot be used: which folder, what is wrong."""


class TrainingError(FailedError):
    """A training run that cannot start or has gone wrong."""
