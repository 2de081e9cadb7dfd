"""Scratch folders: gone with their process, and those of a killed one with the next."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from core.files import LOCK, PREFIX, ScratchFolder
from core.paths import ROOT, Workspace
from tests.kits.patience import PATIENCE_S
from warehouse.lake import Lake

HOLDING = """
import sys, time
from core.files import ScratchFolder
folder = ScratchFolder()
(folder.path / "large").write_bytes(bytes(1000))
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_with_the_next(temporary: Path) -> None:
    beside = temporary / "proccorpus-publish-1"  # of another maker: without a lock
    beside.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDING], cwd=ROOT, env={"TMPDIR": str(temporary)}, stdout=-1) as held:
        assert held.stdout is not None
        path = Path(held.stdout.readline().decode().strip())
        # Of a process that lives nothing is taken
        with ScratchFolder() as own:
            assert set(temporary.iterdir()) == {own, path, beside}
            assert (path / "large").stat().st_size == 1000
        held.send_signal(signal.SIGKILL)
        held.wait(PATIENCE_S)
        assert path.is_dir()
        with ScratchFolder() as own:
            assert set(temporary.iterdir()) == {own, beside}


def test_a_link_is_not_followed(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / LOCK).write_text("")
    (temporary / f"{PREFIX}link").symlink_to(other)
    ScratchFolder().close()
    assert (other / LOCK).exists()


@pytest.mark.parametrize("name", ["proccorpus-trial", f"{PREFIX}trial"])
def test_a_workspace_is_no_scratch_folder(temporary: Path, name: str) -> None:
    """One in the temporary place, called like ours, was deleted by the next command: both locks were called `.lock`."""
    workspace = Workspace(temporary / name)
    lake = Lake(workspace)
    with lake.lock():
        pass
    workspace.lock.touch()  # filelock may take it away
    ScratchFolder().close()
    lake.con.close()
    assert workspace.lock.is_file()
    assert workspace.catalog.is_file()
