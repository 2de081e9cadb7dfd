"""What libraries of a process need not do.

How many cores this process may use: those of the machine are not told to a container that is given less time.

Libraries that multiply matrices (BLAS, torch) begin a thread per core that they may run on, and
know no control groups. They are told by OMP_NUM_THREADS, which they read when they are imported;
what the user says there counts.
"""

import inspect
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dis import opmap
from pathlib import Path
from traceback import walk_stack

CGROUPS = Path("/sys/fs/cgroup")
THREADS = "OMP_NUM_THREADS"
IS_OURS = "OMP_NUM_THREADS_BY_PROCCORPUS"  # that it was us who said it


def cores() -> int:
    """The cores that this process may run on, or fewer where its control group is given less time; at least one."""
    try:
        cgroup_text = Path("/proc/self/cgroup").read_text()
    except OSError:  # no Linux
        cgroup_text = ""
    return max(1, math.ceil(min(_allowed(), cpu_limit(cgroup_text, CGROUPS))))


def _allowed() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tell_libraries() -> None:
    """Have libraries of this process, and of those that it starts, begin no more threads than there are cores for."""
    if THREADS not in os.environ and cores() < _allowed():
        os.environ |= {THREADS: str(cores()), IS_OURS: "1"}


class HiddenModules:
    """On `sys.meta_path`: Arrow and DuckDB find no pandas, which they import, where it is installed,
    for the first value that they are given: 0.2 s for nothing; and DuckDB finds no pyarrow.dataset,
    0.06 s, without which it reads Arrow's tables as quickly. Who imports them in Python gets them."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname in ("pandas", "pyarrow.dataset") and _asks_without_import():
            raise ModuleNotFoundError(fullname)


def _asks_without_import() -> bool:
    """Is what imports a module compiled, so that the line of Python before it is no import?"""
    frames = (frame for frame, _ in walk_stack(inspect.currentframe()))
    names = {__name__, "importlib._bootstrap"}
    caller = next(frame for frame in frames if frame.f_globals.get("__name__") not in names)
    is_import = caller.f_code.co_code[caller.f_lasti] == opmap["IMPORT_NAME"]
    return not is_import and "importlib" not in caller.f_code.co_filename


@contextmanager
def told_to_children(threads: int) -> Iterator[None]:
    """Libraries of processes that are started inside begin so many threads: of several workers each has its share."""
    former_threads = os.environ.get(THREADS)
    if former_threads is not None and IS_OURS not in os.environ:
        yield
        return
    os.environ[THREADS] = str(threads)
    try:
        yield
    finally:
        if former_threads is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = former_threads


def cpu_limit(cgroup_text: str, root: Path) -> float:
    """The least that a process's control group or any above it may use, in cores; infinite where nothing says so.

    cgroup_text: what /proc/self/cgroup says, of version 1 or 2. root: where control groups are mounted; in a container
    a group's own path may not be there, then the root is that of the container.
    """
    limits = [math.inf]
    for line in cgroup_text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / controllers if controllers else root
        group = mounted / path.lstrip("/")
        for folder in (group, *group.parents):
            limits.append(_limit_of(folder))
            if folder == mounted:
                break
    return min(limits)


def _limit_of(folder: Path) -> float:
    """Time over period, as either version writes them."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in files).split()
        except (OSError, ValueError):
            continue
        if quota in ("max", "-1"):
            return math.inf
        return int(quota) / int(period)
    return math.inf
