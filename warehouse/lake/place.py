"""Where a workspace's lake lies: in its own folder, or, for a team, in a Postgres catalog and a bucket; and its locks.

Readers and committers of a SQLite catalog take turns, so that none of them has to wait in SQLite. As DuckDB brings it,
SQLite cannot sleep for less than a second: whoever meets a lock of another process does nothing for that long, however
soon the lock is gone. Two workers that publish stage after stage spent a third of their time so.
"""

import fcntl
import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb

from core.errors import UserError, without_secrets
from core.files import write_file
from core.paths import Workspace

LOCK_TIMEOUT_S = 600.0
LOOK_S = 0.01
KEPT_BACKUPS = 5
LOCK_KEY = 0x70726F63  # of the advisory lock in Postgres: any number, the same for all


# What DuckDB and libpq say of a server that stopped, starts, or has dropped its connections; and of a busy bucket.
# Where Postgres dies under a query, DuckLake may read the first row of a reply that has none ("index 0 within ..."),
# and libpq may have nothing to say. (SQLite's queries fail in the same words, but with a reason behind the colon.)
AWAY = re.compile(
    r"connection to server|could not connect|Unable to connect to Postgres|server closed the connection|"
    r"terminating connection|no connection to the server|connection already closed|the database system is |"
    r'index 0 within vector of size 0|Failed to execute query "[\s\S]*":\s*\Z|'
    r"HTTP\b.*\b50[023]\b|SlowDown",
    re.IGNORECASE,
)
TURN_LOOK_S = 0.002
PATIENCE_S = 2.0


class LakeError(UserError):
    """A lake that cannot be opened or a publish that would break it; one sentence for people."""


def is_passing(e: BaseException | None) -> bool:
    """Is this, or what it comes from, a catalog or bucket that is away, and may be back in a moment?"""
    while e is not None:
        if isinstance(e, duckdb.Error | LakeError) and AWAY.search(str(e)):
            return True
        e = e.__cause__ or e.__context__
    return False


@dataclass(frozen=True)
class LakePlace:
    """`catalog` is a path of SQLite's or an address of Postgres'; `data` a folder or address that ends with a slash."""

    catalog: str
    data: str

    @property
    def is_postgres(self) -> bool:
        return self.catalog.startswith(("postgresql://", "postgres://"))

    @property
    def is_bucket(self) -> bool:
        return self.data.startswith("s3://")

    @property
    def attached(self) -> str:
        """What DuckDB attaches."""
        return f"ducklake:{'postgres' if self.is_postgres else 'sqlite'}:{self.catalog}"

    @property
    def extensions(self) -> tuple[str, ...]:
        """Of DuckDB, by the names of their packages."""
        return (
            "ducklake",
            "postgres_scanner" if self.is_postgres else "sqlite_scanner",
            *(("httpfs",) if self.is_bucket else ()),
        )


def place(workspace: Workspace) -> LakePlace:
    """Where the lake of a workspace lies. Raises LakeError when its workspace.toml cannot be read."""
    settings = _settings(workspace)
    return _checked(
        workspace, settings.get("catalog"), settings.get("data"), str(workspace.settings)
    )


def kept_backups(workspace: Workspace) -> int:
    """How many copies of the catalog are kept: `keep` of [backup] in workspace.toml. Raises LakeError."""
    backup = _settings(workspace).get("backup", {})
    if isinstance(backup, dict) and not set(backup) - {"keep"}:
        keep = backup.get("keep", KEPT_BACKUPS)
    else:
        keep = None
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 0:
        raise LakeError(
            f"{workspace.settings}: [backup] says keep = NUMBER, how many copies of the catalog; 0: none"
        )
    return keep


def _settings(workspace: Workspace) -> dict[str, Any]:
    """What workspace.toml says. Raises LakeError."""
    path = workspace.settings
    if not path.exists():
        return {}
    try:
        settings = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise LakeError(f"{path}: {e}") from e
    if unknown := set(settings) - {"catalog", "data", "backup"}:
        raise LakeError(
            f"{path}: it may say catalog, data and [backup], not {', '.join(sorted(unknown))}"
        )
    return settings


def create(workspace: Workspace, catalog: str | None, data: str | None) -> None:
    """Say where a new workspace's lake lies. Raises LakeError when there is a workspace, or a lake cannot lie there."""
    if workspace.exists():
        raise LakeError(f"{workspace.root} is a workspace already: its lake stays where it is")
    _checked(workspace, catalog, data, "--catalog and --data")
    lines = [
        f"{k} = {json.dumps(v, ensure_ascii=False)}"
        for k, v in (("catalog", catalog), ("data", data))
        if v is not None
    ]
    write_file(workspace.settings, "".join(f"{line}\n" for line in lines).encode())


def _checked(workspace: Workspace, catalog: object, data: object, location: str) -> LakePlace:
    """Where a lake lies by what was given. Raises LakeError; `location` says where the addresses come from."""
    for text in (catalog, data):
        if text is not None and not isinstance(text, str):
            raise LakeError(f"{location}: {text!r} is no address")
        if text and without_secrets(text) != text:
            raise LakeError(
                f"{location}: no password or key in an address; give it as PGPASSWORD, in ~/.pgpass, or AWS_*"
            )
    lake_place = LakePlace(
        str(catalog or workspace.catalog), f"{str(data or workspace.data).rstrip('/')}/"
    )
    if catalog is not None and not lake_place.is_postgres:
        raise LakeError(
            f"{location}: a catalog is postgresql://USER@HOST:PORT/DATABASE, not {catalog!r}"
        )
    _check_data(lake_place, data, location)
    return lake_place


def _check_data(lake_place: LakePlace, data: object, location: str) -> None:
    if data is not None and not lake_place.is_bucket and not Path(lake_place.data).is_absolute():
        raise LakeError(
            f"{location}: data lies in s3://BUCKET/FOLDER or an absolute path, not {data!r}"
        )
    if lake_place.is_bucket and not lake_place.is_postgres:
        raise LakeError(
            f"{location}: data in a bucket needs a catalog in Postgres, where several machines can commit"
        )


def bucket_settings(address: str) -> dict[str, str | bool]:
    """Of DuckDB's secret for a bucket, from where all AWS tools look: the environment, profiles,
    the machine's role.

    Raises LakeError when no credentials are found.
    """
    from botocore import configprovider, exceptions, session

    aws = session.Session()
    try:
        credentials = aws.get_credentials()
        # None for Amazon's own
        endpoint = configprovider.ConfiguredEndpointProvider(
            aws.full_config, aws.get_scoped_config(), "s3"
        ).provide()
    except exceptions.BotoCoreError as e:
        raise LakeError(f"{address}: {e}") from e
    if credentials is None:
        raise LakeError(
            f"{address}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    # One consistent set of keys: a role's credentials may be renewed between two reads
    keys = credentials.get_frozen_credentials()
    settings: dict[str, str | bool] = {
        "KEY_ID": keys.access_key,
        "SECRET": keys.secret_key,
        "SCOPE": address,
        "REGION": aws.get_config_variable("region") or "us-east-1",
    }
    if keys.token:
        settings["SESSION_TOKEN"] = keys.token
    # A store that is not Amazon's (MinIO and such) has no host name for each bucket
    if endpoint:
        url = urlsplit(endpoint)
        settings |= {
            "ENDPOINT": url.netloc + url.path.rstrip("/"),
            "URL_STYLE": "path",
            "USE_SSL": url.scheme == "https",
        }
    return settings


def holder(path: Path) -> str | None:
    """The process of this machine that holds a kernel lock on a file, for people; None: none is seen."""
    try:
        inode = str(path.stat().st_ino)
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    # 1: FLOCK ADVISORY WRITE <pid> <device>:<inode> <from> <to>; those that wait begin with ->
    for line in locks:
        fields = line.split()
        if len(fields) > 5 and fields[1] != "->" and fields[5].rpartition(":")[2] == inode:
            with suppress(OSError):  # it may have ended just now
                command = Path(f"/proc/{fields[4]}/cmdline").read_bytes().replace(b"\0", b" ")
                return f"process {fields[4]} ({command.decode(errors='replace').strip()[:100]})"
    return None


def locked(
    workspace: Workspace, meanwhile: Callable[[], bool] = lambda: False
) -> AbstractContextManager[None]:
    """The right to commit, for one process at a time: a kernel lock, or one of Postgres' that goes
    with its session.

    meanwhile: is called while another process has it, again and again until it says that the right
    is of no more use (by Postgres, where all get it in the order in which they came, once). Raises
    LakeError when it is not had within LOCK_TIMEOUT_S, or the catalog's server does not answer.
    """
    lake_place = place(workspace)
    if lake_place.is_postgres:
        return _locked_in_postgres(lake_place, meanwhile)
    return _locked_by_kernel(workspace, meanwhile)


@contextmanager
def _locked_by_kernel(workspace: Workspace, meanwhile: Callable[[], bool]) -> Iterator[None]:
    end_s = time.monotonic() + LOCK_TIMEOUT_S
    with lock_file(workspace.lock) as lock:
        try:
            is_ours = is_taken(lock)
        except OSError as e:
            raise LakeError(
                f"{workspace.lock}: commits take turns by a lock on it, which its file system does not give "
                f"({e.strerror}): move the workspace to another one"
            ) from e
        while not is_ours and not meanwhile():
            if time.monotonic() > end_s:
                holder_name = holder(workspace.lock) or "another process"
                raise LakeError(
                    f"{workspace.root}: {holder_name} has been committing for {LOCK_TIMEOUT_S:.0f} s"
                )
            time.sleep(LOOK_S)
            is_ours = is_taken(lock)
        yield


@contextmanager
def building(workspace: Workspace) -> Iterator[None]:
    """While a build goes on, beside others: see `while_nothing_is_built`. It waits where somebody is in there."""
    with lock_file(workspace.building) as lock:
        with suppress(OSError):  # a file system without such locks
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def while_nothing_is_built(workspace: Workspace, action: str) -> Iterator[None]:
    """What must not happen during a build; builds that begin meanwhile wait. Sees builds of this
    machine.

    Raises UserError: a build goes on. `action` names what was to be done.
    """
    with lock_file(workspace.building) as lock:
        with suppress(OSError):  # a file system without such locks: nobody can tell
            if not is_taken(lock):
                builder = holder(workspace.building) or "another process"
                raise UserError(
                    f"{action} has to wait until the build has ended that goes on ({builder})"
                )
        yield


@contextmanager
def lock_file(path: Path) -> Iterator[int]:
    """An open file for a kernel lock, which is given back at the end. It stays: others may wait for it. Raises OSError.

    Not by the package filelock, whose import costs each start 0.03 s.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield lock
    finally:
        # A process that was forked meanwhile has the same file open
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def is_taken(lock: int) -> bool:
    """Take the lock of an open file for this process alone; False: another one has it. Raises OSError."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # some file systems say the latter
        return False
    return True


def postgres_session(catalog: str) -> Any:
    """A connection to a catalog in Postgres. Raises LakeError."""
    import psycopg2

    try:
        return psycopg2.connect(catalog)
    except psycopg2.OperationalError as e:
        raise LakeError(
            f"{catalog}: the catalog's server does not answer: {' '.join(str(e).split())}"
        ) from e


@contextmanager
def _locked_in_postgres(lake_place: LakePlace, meanwhile: Callable[[], bool]) -> Iterator[None]:
    # Closing the session gives the lock back
    with closing(postgres_session(lake_place.catalog)) as session, session.cursor() as cursor:
        cursor.execute("SET lock_timeout = %s", [f"{LOCK_TIMEOUT_S:.0f}s"])
        try:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY])
            if cursor.fetchone() == (False,):
                meanwhile()
                cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        except session.OperationalError as e:
            raise LakeError(
                f"{lake_place.catalog}: another process has been committing for {LOCK_TIMEOUT_S:.0f} s (its pid at the "
                f"server is in pg_locks, locktype advisory), or the server went away: {' '.join(str(e).split())}"
            ) from e
        yield


def reading_turn(workspace: Workspace) -> AbstractContextManager[None]:
    """Beside other readers, and while nobody commits."""
    return _turn(workspace, fcntl.LOCK_SH)


def committing_turn(workspace: Workspace) -> AbstractContextManager[None]:
    """While nobody reads or commits."""
    return _turn(workspace, fcntl.LOCK_EX)


@contextmanager
def _turn(workspace: Workspace, kind: int) -> Iterator[None]:
    """Promises nothing: where there is no turn within PATIENCE_S, or none can be had, SQLite's own locks decide."""
    handle = None
    # A lock on the folder itself: no file has to be made, and one more lock on the catalog would undo SQLite's
    if workspace.catalog.exists():
        with suppress(OSError):
            handle = os.open(workspace.catalog.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + PATIENCE_S
        with suppress(OSError):  # a file system without such locks
            while handle is not None and time.monotonic() < end:
                try:
                    fcntl.flock(handle, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(TURN_LOOK_S)
        yield
    finally:
        if handle is not None:
            os.close(handle)
