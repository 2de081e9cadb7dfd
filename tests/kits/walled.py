"""Processes behind a wall, forked in tests too.

A command forks them, which costs nothing. A worker of the tests has threads, so that each would be
a start of Python and its imports, 0.7 s of CPU; here they are forked from a process that has
imported the same, and has no threads.
"""

import os
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from types import SimpleNamespace
from typing import Any

import pytest

PRELOADED = ["warehouse.lake.sql", "eval.server.limits"]
POOL = "ARROW_DEFAULT_MEMORY_POOL"  # warehouse.sql_process sets it before Arrow is imported


def forked(name: str) -> Any:
    """A context of multiprocessing, as `get_context` gives it, whose processes begin so."""
    context: Any = get_context("forkserver")

    def process(target: Callable[..., None], args: tuple, daemon: bool) -> Any:
        context.set_forkserver_preload(PRELOADED)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(POOL, "system")
            forkserver.ensure_running()
        args = (dict(os.environ), target, *args)
        return context.Process(target=begin_with, args=args, daemon=daemon)

    if name == "fork":
        return get_context(name)
    return SimpleNamespace(
        Pipe=context.Pipe, Process=process, set_forkserver_preload=lambda names: None
    )


def begin_with(environment: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    """The environment is that of who starts the process, not that of the one it is forked from."""
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
