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
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_with_the_next(temporary):
    other_folder = temporary / "proccorpus-publish-1"
    other_folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], cwd=ROOT, env={"TMPDIR": str(temporary)}, stdout=-1
    ) as holder_process:
        path = Path(holder_process.stdout.readline().decode().strip())
        # Of a process that lives nothing is taken
        with ScratchFolder() as scratch_folder:
            assert set(temporary.iterdir()) == {scratch_folder, path, other_folder}
            assert (path / "large").stat().st_size == 1000
        holder_process.send_signal(signal.SIGKILL)
        holder_process.wait(PATIENCE_S)
        assert path.is_dir()
        with ScratchFolder() as scratch_folder:
            assert set(temporary.iterdir()) == {scratch_folder, other_folder}


def test_a_link_is_not_followed(temporary, tmp_path_factory):
    other_folder = tmp_path_factory.mktemp("other")
    (other_folder / LOCK).write_text("")
    (temporary / f"{PREFIX}link").symlink_to(other_folder)
    ScratchFolder().close()
    assert (other_folder / LOCK).exists()


@pytest.mark.parametrize("name", ["proccorpus-trial", f"{PREFIX}trial"])
def test_a_workspace_is_no_scratch_folder(temporary, name):
    # One called like ours was deleted: both locks were called `.lock`
    workspace = Workspace(temporary / name)
    lake = Lake(workspace)
    with lake.lock():
        pass
    ScratchFolder().close()
    lake.con.close()
    assert workspace.lock.is_file()
    assert workspace.catalog.is_file()
