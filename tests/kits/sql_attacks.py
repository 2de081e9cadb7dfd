"""Statements that look for a way out of the SQL sandbox, and whether one found it."""

import hashlib
from pathlib import Path

SECRETS = ("SECRET-OF-A-FILE", "SECRET-OF-THE-ENVIRONMENT", "root:x:0")
NAME = "MY_SECRET"
WAYS_OUT = Path(__file__).with_name("sql_ways_out.txt")


def ways_out(work: Path) -> list[str]:
    """Statements that read or write what they may not, each on a line of a file; `work` has what they look for."""
    lines = WAYS_OUT.read_text().splitlines()
    return [line.replace("{work}", str(work)).encode("latin-1", "backslashreplace").decode("unicode_escape") for line in
            (escaped(line) for line in lines)]  # fmt: skip


def escaped(line: str) -> str:
    """With backslashes that are not those of an invisible character doubled."""
    return line.replace("\\", "\\\\").replace("\\\\u20", "\\u20")


def state_of(work: Path) -> str:
    """A digest of all files outside the lake's own reach: what was beside the workspace, and what is in it."""
    parts = []
    for path in sorted(work.rglob("*")):
        # SQLite's own files come and go with a reader
        if path.is_file() and not path.name.endswith(("-wal", "-shm")):
            parts.append(f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def below(pid: int) -> list[int]:
    """Processes that a process has started, and those that they did."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(word) for word in children.read_text().split()]
        except OSError:
            continue
        found += [p for child in own for p in (child, *below(child))]
    return found
