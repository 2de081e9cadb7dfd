"""Statements that look for a way out of the SQL sandbox, and whether one found it."""

from itertools import chain
from pathlib import Path

from tests.kits.files import hashes_of

SECRETS = ("SECRET-OF-A-FILE", "SECRET-OF-THE-ENVIRONMENT", "root:x:0")
NAME = "MY_SECRET"
WAYS_OUT = Path(__file__).with_name("sql_ways_out.txt")


def ways_out(work: Path) -> list[str]:
    """Statements that read or write what they may not, each on a line of a file; `work` has what
    they look for."""
    lines = WAYS_OUT.read_text().splitlines()
    return [line.replace("{work}", str(work)).encode("latin-1", "backslashreplace").decode("unicode_escape") for line in
            (map(escaped, lines))]  # fmt: skip


def escaped(line: str) -> str:
    """With backslashes that are not those of an invisible character doubled."""
    return line.replace("\\", "\\\\").replace("\\\\u20", "\\u20")


def state_of(work: Path) -> dict[str, str]:
    """Hashes of all files, but for SQLite's own, which come and go with a reader."""
    return {
        name: sha256
        for name, sha256 in hashes_of(work).items()
        if not name.endswith(("-wal", "-shm"))
    }


def below(pid: int) -> list[int]:
    """Processes that a process has started, and those that they did."""
    descendants = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            child_pids = [int(word) for word in children.read_text().split()]
        except OSError:
            continue
        descendants += list(chain.from_iterable((child, *below(child)) for child in child_pids))
    return descendants
