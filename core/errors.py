"""Errors that a person can mend: the command line shows each as one line, and ends with its exit code."""


class UserError(Exception):
    """Something asked for cannot be done as asked: what was wrong, where, and what to do."""

    exit_code = 2


class OperationFailedError(UserError):
    """What was asked for was right, and could not be finished: a server, a disk, a model or a file failed."""

    exit_code = 1
