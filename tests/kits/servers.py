"""A Postgres and an S3 server of a test's own, on free ports of this machine."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kits.patience import PATIENCE_S


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end(*processes: subprocess.Popen, wait_s: float = 20) -> None:
    """End processes of ours and all they started, together, politely first."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    limit = time.monotonic() + wait_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# What is written is the kernel's at once, and outlives a kill of all processes; no test cuts the power of the machine
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "fsync=off",
    "full_page_writes=off",
)


@dataclass
class Postgres:
    """Runs as the user `postgres` where we are root, which it refuses to be."""

    folder: Path
    port: int
    process: subprocess.Popen | None = field(default=None)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        command = [
            *_as_user(),
            _program("postgres"),
            "-D",
            self.folder,
            "-p",
            self.port,
            *(f"--{setting}" for setting in SETTINGS),
        ]
        self.process = subprocess.Popen(
            [str(c) for c in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        limit = time.monotonic() + PATIENCE_S
        while not self.answers():
            assert self.process.poll() is None, "Postgres has ended"
            assert time.monotonic() < limit, "Postgres does not get ready"
            time.sleep(0.05)

    def answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(self.url()).close()
        except psycopg2.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """As a pulled plug: all its processes at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def execute(self, sql: str, database: str = "postgres") -> None:
        import psycopg2

        session = psycopg2.connect(self.url(database))
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute(sql)
        session.close()


def _program(name: str) -> str:
    """Debian keeps Postgres' programs off the PATH."""
    program = shutil.which(name) or next(
        iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    assert program, f"no {name}: apt-get install postgresql (make stack-test does)"
    return str(program)


def _as_user() -> list[str]:
    if os.getuid() == 0:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    return []


@contextmanager
def postgres() -> Iterator[Postgres]:
    with TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder:
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = Path(folder) / "data"
        command = [
            *_as_user(),
            _program("initdb"),
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
        server = Postgres(data, free_port())
        server.start()
        try:
            yield server
        finally:
            if server.process is not None:
                end(server.process)


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """The environment in which its bucket `corpora` is reached."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
    }
    try:
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="dummy",
            aws_secret_access_key="dummy",
            region_name="us-east-1",
        ).create_bucket(Bucket="corpora")
        yield settings
    finally:
        server.stop()
