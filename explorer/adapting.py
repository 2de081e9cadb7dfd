"""Adapting a model to one episode from its page: proccorpus adapt in a process of its own, one at a time."""

import re
import shlex
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from core.paths import Workspace
from explorer.access import PageError

RECIPE = re.compile(r"[A-Za-z0-9_]{1,80}")  # the name of a built-in one; a file is for the command line
DEFAULT_RECIPE = "procvlm_oneshot_lora"
TAIL_BYTES = 8000


@dataclass
class Adapting:
    """The one adaptation of this explorer, running or ended. For use by several threads."""

    space: Workspace
    about: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def _log(self) -> Path:
        return self.space.root / "explorer" / "adapt.log"

    def start(self, dataset: str, episode_index: int, model: str, recipe: str) -> None:
        """Raises PageError: one is running, or the recipe is none that is built in."""
        if not RECIPE.fullmatch(recipe):
            raise PageError("recipe: the name of a built-in recipe is needed", 422)
        with self._lock:
            if self.running:
                raise PageError(f"an adaptation is running already: {self.about}", 409)
            self._log.parent.mkdir(exist_ok=True)
            arguments = command(self.space, dataset, episode_index, model, recipe)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [program(), *arguments[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            self.about = f"{dataset} {episode_index} with {model}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def state(self) -> dict:
        """Its episode and model, whether it runs, its exit code when it has ended, and the end of its log."""
        if self._process is None:
            return {"about": None, "running": False, "exit_code": None, "log": ""}
        code = self._process.poll()
        log = b""
        with suppress(OSError):
            log = self._log.read_bytes()[-TAIL_BYTES:]
        text = log.decode(errors="replace")
        return {"about": self.about, "running": code is None, "exit_code": code, "log": text}

    def stop(self) -> None:
        """End it with the explorer; what it has trained by then can be gone on with (--resume)."""
        with self._lock:
            if self._process is not None and self.running:
                self._process.terminate()
                self._process.wait()


def program() -> str:
    return str(Path(sys.executable).parent / "proccorpus")


def command(space: Workspace, dataset: str, episode_index: int, model: str, recipe: str) -> list[str]:
    return [
        "proccorpus",
        "adapt",
        f"--dataset={dataset}",
        f"--episode={episode_index}",
        f"--model={model}",
        f"--recipe={recipe}",
        f"--workspace={space.root}",
    ]


def in_words(arguments: list[str]) -> str:
    return shlex.join(arguments)
