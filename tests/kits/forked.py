"""Commands of ours in processes that are forked from one which has imported what most of them need.

To import it takes most of a command's time. What is forked has arguments, environment, folder, streams and an exit code
of its own, and ends as a program does; it knows nothing of tests.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType

import duckdb

from core.paths import ROOT

# What most commands need; pandas is not among it, which some of them leave out of their process
USUAL = (
    "proccorpus", "cli.main", "cli.building", "cli.inspecting", "cli.exporting", "cli.evaluating", "cli.correcting",
    "cli.releasing", "cli.rewarding", "cli.querying", "cli.sampling", "pipeline.build", "pipeline.plan",
    "pipeline.doctor", "assets.lib.report", "eval.annotators.compare", "warehouse.sql_process", "pyarrow.dataset",
    "av", "multiprocessing.popen_spawn_posix",
)  # fmt: skip
# And those that let a model learn or score
OF_MODELS = (
    *USUAL, "torch", "pandas", "matplotlib.figure", "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert", "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "transformers.models.qwen3_vl.processing_qwen3_vl", "training.train", "training.loop", "eval.reward.model",
)  # fmt: skip
ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # pyarrow's memory would have one of its own
MOST = 1 << 20  # bytes of a request


class Forked:
    """Starts of one program, whose `modules` are imported in that environment."""

    def __init__(self, program: Path, environment: Mapping[str, str], modules: Sequence[str]) -> None:
        self.environment = dict(environment)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(program), str(theirs.fileno()), *modules],
                cwd=ROOT,
                env=self.environment | ONE_THREAD,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str, str]:
        """Exit code (negative: the signal that ended it), standard output and errors, as `subprocess.run` has them.

        Raises TimeoutError, and ends the process.
        """
        request = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        with TemporaryFile() as out, TemporaryFile() as err:
            told, tells = os.pipe()
            fds = [out.fileno(), err.fileno(), tells]
            socket.send_fds(self._channel, [json.dumps(request).encode()], fds)
            os.close(tells)
            with open(told) as answers:
                started = answers.readline()
                assert started, "the process that is forked has ended"
                if not select.select([told], [], [], timeout_s)[0]:
                    os.kill(int(started), signal.SIGKILL)
                    raise TimeoutError(f"{' '.join(arguments)}: not at its end after {timeout_s:g} s")
                code = int(answers.readline())
            out.seek(0)
            err.seek(0)
            return code, out.read().decode(), err.read().decode()

    def close(self) -> None:
        self._channel.close()
        self._process.wait(60)


def _serve(program: Path, channel: socket.socket, modules: Sequence[str]) -> None:
    """Fork for each request until nobody asks any more. Only what was forked returns, and then ends as a program does.

    An answer has two lines: the number of the process, and at its end the exit code.
    """
    for name in modules:
        import_module(name)
    duckdb.default_connection().close()  # the connection that is made by its import has a thread; we never use it
    assert len(os.listdir("/proc/self/task")) == 1, "to be forked, a process may have one thread"
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), *running], [], [])
        for ended in set(ready) & set(running):
            pid, tells = running.pop(ended)
            _answer(tells, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os.close(ended)
            os.close(tells)
        if channel.fileno() not in ready:
            continue
        data, fds, _, _ = socket.recv_fds(channel, MOST, 3)
        if not data:
            os._exit(0)
        out, err, tells = fds
        pid = os.fork()
        if pid == 0:
            os.dup2(out, 1)
            os.dup2(err, 2)
            channel.close()
            for fd in (*fds, *running, *(other for _, other in running.values())):
                os.close(fd)
            _become(program, **json.loads(data))
            return
        os.close(out)
        os.close(err)
        _answer(tells, pid)
        running[os.pidfd_open(pid)] = pid, tells


def _answer(tells: int, number: int) -> None:
    try:
        os.write(tells, f"{number}\n".encode())
    except BrokenPipeError:  # who asked has given up
        return


def _become(program: Path, arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """What a start of the program would find."""
    os.environ.clear()
    os.environ |= environment
    os.chdir(cwd)
    sys.argv = [str(program), *arguments]
    sys.path[0] = str(program.parent)
    main = ModuleType("__main__")
    main.__file__ = str(program)  # which processes that it spawns import
    sys.modules["__main__"] = main


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
    from proccorpus import main

    sys.exit(main())
