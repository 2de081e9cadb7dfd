"""What state a workspace's catalog is in: whoever opens a lake asks here first. And its backups.

One look at the file, one sentence for people: what is wrong, the newest backup, and the way back, `recover`.
"""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import duckdb

from core.files import whole_file, write_file
from core.paths import Workspace
from warehouse.lake.place import AWAY, LOCK_TIMEOUT_S, LakeError, kept_backups, place, reading_turn

# In DuckDB's words
DAMAGED_ROWS = re.compile(r"[Pp]arquet|magic bytes|TProtocolException|ZSTD|[Dd]ecompress")
LOOKS, LOOK_S = 20, 0.05  # at a file that is being written to
# Of a file's error: it is not damaged
NOT_READ = re.compile(r"write|permission denied|read-only|interrupt", re.I)


def check_catalog(workspace: Workspace) -> bool:
    """Is there a catalog? False: neither that nor anything else of a corpus. Reads only.

    Raises LakeError: a catalog that is missing or empty beside what is left of a corpus, cut off or damaged. One in
    Postgres is looked at by its server.
    """
    if place(workspace).is_postgres:
        return True
    # While nobody commits: a file that is being written to may look cut off
    with reading_turn(workspace):
        wrong = _wrong(workspace.catalog)
    if wrong is None:
        return True
    if wrong in ("is missing", "is empty") and not remains(workspace):
        return False
    raise lost(workspace, wrong)


def _wrong(catalog: Path) -> str | None:
    """What is wrong with a catalog's file, as far as its bytes show; None: nothing."""
    for _ in range(LOOKS):
        try:
            status = catalog.stat()
        except FileNotFoundError:
            return "is missing"
        file = _opened(catalog, status.st_dev, status.st_ino).fileno()
        size = status.st_size
        head = os.pread(file, 100, 0)
        if not head.startswith(b"SQLite format 3\0"):
            if size:
                return "is no file of SQLite's"
            return "is empty"
        page = int.from_bytes(head[16:18])
        page = 65536 if page == 1 else page
        # A commit under way, or one that a power cut tore and SQLite takes back, leaves its journal beside the file
        if (
            size >= int.from_bytes(head[28:32]) * page
            or catalog.with_name(f"{catalog.name}-journal").exists()
        ):
            # Pages that are free may be empty: SQLite itself can tell
            is_damaged = _has_empty_page(file, size, page) and _sqlite(CHECK, catalog)
            if is_damaged:
                return "is damaged: pages of it are empty"
            return None
        time.sleep(LOOK_S)
    return "is cut off: it is shorter than it says itself"


def _has_empty_page(file: int, size: int, page: int) -> bool:
    empty_page = bytes(page)
    # Pages are read in blocks: a system call for each page would take longer than to look at it
    block_size = page << 8
    for block_start in range(0, size, block_size):
        block = os.pread(file, block_size, block_start)
        if empty_page in (block[start : start + page] for start in range(0, len(block), page)):
            return True
    return False


@lru_cache(maxsize=64)
def _opened(catalog: Path, device: int, inode: int) -> BinaryIO:
    """A file kept open: the kernel gives up a process's locks on a file when any handle of it is closed, whoever opened
    it, and SQLite in this process may hold some.
    """
    return catalog.open("rb")


def is_sound(workspace: Workspace) -> bool:
    """Is a catalog in SQLite there, and whole as far as SQLite can tell? One in Postgres is its server's matter."""
    if place(workspace).is_postgres:
        return True
    return _wrong(workspace.catalog) is None and not _sqlite(CHECK, workspace.catalog)


def remains(workspace: Workspace) -> bool:
    """Is anything there of a corpus, whatever the catalog says: commits noted, people's lines, backups, rows?"""
    if newest_committed(workspace) or workspace.statements.exists() or backups(workspace):
        return True
    lake_place = place(workspace)
    return not lake_place.is_bucket and any(
        path.is_file() for path in Path(lake_place.data).rglob("*")
    )


def lost(workspace: Workspace, state: str) -> LakeError:
    """The error of a catalog that is not usable, beside what is left of its corpus."""
    newest = next(iter(backups(workspace)), None)
    if place(workspace).is_postgres:
        have = "restore the newest dump of the database"
    elif newest:
        have = f"its newest backup is {newest}"
    else:
        have = "there is no backup of it in this workspace"
    return LakeError(
        f"{place(workspace).catalog}: the catalog {state}, though a corpus lies here: {have}; proccorpus recover makes "
        "the catalog again, with all that people said; nothing was changed"
    )


def explained(workspace: Workspace, e: duckdb.Error) -> LakeError | None:
    """What DuckDB says of a lake whose catalog or files of rows are damaged, in words for people; else None."""
    text = str(e)
    if AWAY.search(text) or NOT_READ.search(text):
        return None
    if "does not exist" in text and "DUCKLAKE" in text.upper():  # no tables of DuckLake's own
        if remains(workspace):
            return lost(workspace, "has no tables")
        return LakeError(workspace.absence)
    if "malformed" in text or "file is not a database" in text:
        return lost(workspace, "is damaged")
    if DAMAGED_ROWS.search(text):
        return LakeError(
            f"{workspace.root}: files of rows are missing or damaged: proccorpus doctor names them, proccorpus doctor "
            "--repair and a build make them again"
        )
    return None


def newest_committed(workspace: Workspace) -> int | None:
    """The newest snapshot that was committed to this workspace, as noted beside the catalog: newer than the catalog's
    own where an older copy of that was put in its place. None: never noted.
    """
    try:
        return int(workspace.committed.read_text())
    except (OSError, ValueError):
        return None


def is_older(workspace: Workspace, snapshot: int) -> str:
    """Why a catalog at a snapshot is a copy of before the newest commit, for people; empty where it is none."""
    newest = newest_committed(workspace) or 0
    if newest <= snapshot:
        return ""
    return (
        f"the catalog is at snapshot {snapshot}, but {newest} was committed here: an older copy replaced it; put the "
        "newer one back, or let this one count: proccorpus recover"
    )


def note_committed(workspace: Workspace, snapshot: int, *, is_reset: bool = False) -> None:
    """Never lowered, unless `is_reset`. Whole or not at all, but not synced: what is lost of it is a warning, not
    data."""
    if is_reset or snapshot > (newest_committed(workspace) or 0):
        with suppress(OSError):  # a disk that is full now: the commit stands
            write_file(workspace.committed, str(snapshot).encode(), synced=False)


# Backups


def backups(workspace: Workspace) -> list[Path]:
    """Copies of the catalog, backups/NUMBER-SNAPSHOT.sqlite, the newest first."""
    # Not those that a power cut left half written: their names begin with a dot
    return sorted((workspace.root / "backups").glob("[0-9]*.sqlite"), reverse=True)


def back_up(workspace: Workspace, snapshot: int) -> Path | None:
    """Copy a catalog in SQLite, at a snapshot, unless the newest copy is of that; the last few are
    kept.

    None: the catalog is a server's, or workspace.toml says that none are kept.
    """
    keep = kept_backups(workspace)
    existing_backups = backups(workspace)
    if not keep or place(workspace).is_postgres:
        return None
    newest = existing_backups[0].stem if existing_backups else "0"
    number, _, backup_snapshot = newest.partition("-")
    if backup_snapshot == str(snapshot):
        return existing_backups[0]
    path = workspace.root / "backups" / f"{int(number) + 1:06d}-{snapshot}.sqlite"
    with whole_file(path) as half:
        copy_catalog(workspace.catalog, half)
    for old in backups(workspace)[keep:]:
        old.unlink()
    return path


# Python alone (-I -S): it takes 20 ms
COPY = "source.backup(sqlite3.connect(sys.argv[2]))"
CHECK = (
    "source.execute('PRAGMA quick_check(1)').fetchall() == [('ok',)] or sys.exit('it is damaged')"
)


def copy_catalog(catalog: Path, still: Path) -> None:
    """Copy a catalog in SQLite as it is at one moment. Raises LakeError."""
    if reason := _sqlite(COPY, catalog, still):
        raise LakeError(f"{catalog} cannot be copied: {reason}")


def _sqlite(code: str, catalog: Path, *arguments: Path) -> str:
    """Do something with a catalog, in a process of its own: see `_opened`. Returns why that failed;
    empty: it did not.

    (Python has another SQLite than DuckDB: here its close would let others into a commit of
    DuckDB's.)
    """
    begin = f"import sqlite3, sys; source = sqlite3.connect(sys.argv[1], uri=True, timeout={LOCK_TIMEOUT_S}); "
    program = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        begin + code,
        f"{catalog.as_uri()}?mode=ro",
        *map(str, arguments),
    ]
    process = subprocess.run(program, capture_output=True, text=True, check=False)
    if process.returncode:
        return process.stderr.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
    return ""
