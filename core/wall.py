"""The wall round what decodes a stranger's bytes: this process can hold so much more memory, and no more.

A small file may claim anything, and decoders believe it. Nothing here reads claims: the kernel refuses the memory, and
the decoder says so, by its own error or by MemoryError.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

_changing = Lock()
_walls: list[int] = []  # bytes of data that this process may hold, of all that stand
_usual = resource.getrlimit(resource.RLIMIT_DATA)


@contextmanager
def memory_wall(num_bytes: int) -> Iterator[None]:
    """As long as it stands, this process, with all its threads, can hold `num_bytes` more than now. The nearest of
    several walls counts. Raises nothing of its own."""
    most = held_bytes("VmData") + num_bytes
    with _changing:
        _walls.append(most)
        _keep_to_walls()
    try:
        yield
    finally:
        with _changing:
            _walls.remove(most)
            _keep_to_walls()


def _keep_to_walls() -> None:
    soft, hard = _usual
    limits = _walls if soft == resource.RLIM_INFINITY else [*_walls, soft]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits, default=soft), hard))


def held_bytes(name: str) -> int:
    """Bytes that this process holds, by a line of /proc/self/status. Raises OSError."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"this system does not tell {name}")
