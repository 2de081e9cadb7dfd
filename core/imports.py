"""Packages that commands do without, because to import them costs more than it gives."""

import atexit
import gc
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _LeftOut(MetaPathFinder, Loader):
    """Finds a package, and refuses to import it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == self.name else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ModuleNotFoundError(f"{self.name} is left out of this process: core.imports", name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError("no module was made")


_left_out = _LeftOut("pandas")
_numpy_left_out = _LeftOut("numpy")


def leave_out_pandas() -> None:
    """For the rest of this process pandas cannot be imported, unless it was before.

    DuckDB and pyarrow try it, 0.3 s of CPU, as soon as they are given a value, to see whether that is one of its own.
    For other code that needs it: `bring_pandas_back` before that runs.
    """
    if not pandas_is_left_out():
        sys.meta_path.insert(0, _left_out)


def leave_out_numpy() -> None:
    """For commands that show rows of the lake: pyarrow and DuckDB do without it, and it costs 0.06 s of CPU."""
    if _numpy_left_out not in sys.meta_path:
        sys.meta_path.insert(0, _numpy_left_out)


def collect_seldom() -> None:
    """Look for circles of what nobody uses any more after 100,000 new objects, not after 700: to import what a command
    needs makes hundreds of thousands that stay, and to look through them again and again takes 5 % of its time. Nor are
    they taken apart when the process ends, which took 0.05 s of CPU: the system takes its memory back anyway.
    """
    gc.set_threshold(100_000)
    # Called last, since it is registered first
    atexit.register(gc.freeze)


def bring_pandas_back() -> None:
    if pandas_is_left_out():
        sys.meta_path.remove(_left_out)


def pandas_is_left_out() -> bool:
    return _left_out in sys.meta_path
