"""pandas, left out of a process that does not need it."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _WithoutPandas(MetaPathFinder):
    """Refuses to find pandas."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError(
                "pandas is left out of this process: core.imports", name=fullname
            )
        return None


_without_pandas = _WithoutPandas()


def leave_out_pandas() -> None:
    """For the rest of this process pandas cannot be imported, unless it was before.

    DuckDB and pyarrow try it, 0.3 s of CPU, as soon as they are given a value, to see whether that is one of its own.
    For other code that needs it: `bring_pandas_back` before that runs.
    """
    if not pandas_is_left_out():
        sys.meta_path.insert(0, _without_pandas)


def bring_pandas_back() -> None:
    if pandas_is_left_out():
        sys.meta_path.remove(_without_pandas)


def pandas_is_left_out() -> bool:
    return _without_pandas in sys.meta_path
