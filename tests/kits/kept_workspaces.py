"""Small workspaces as earlier versions left them, with what people said: `python -m
tests.kits.kept_workspaces` makes those of KEPT that are missing in tests/data/workspaces, by the
code of their commits.

A version that is tagged gets its line here, and its workspace is committed with it. Needs the
repository's history, and runs old code with the packages of today. A workspace is kept with its
source; Dagster's storage is left out.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from core.paths import ROOT
from tests.kits.tiny_lerobot import make_dataset

FOLDER = ROOT / "tests" / "data" / "workspaces"
KEPT = {"0.1.0": "aab5401", "0.2.0-schema-12": "82bb0320"}  # by version the commit that wrote it
# Run by the code of a version in its checkout, of 0.2.0 or later: the argument is the workspace
SAY = (Path(__file__).parent / "said_in_former_versions.txt").read_text()
RUN = "import sys; sys.argv[0] = 'proccorpus'; import proccorpus; proccorpus.main()"


def make(version: str, commit: str, folder: Path) -> Path:
    """The archive of a version's workspace, made in an empty folder."""
    tree = folder / "tree"
    space = folder / "workspace"
    source = make_dataset(folder / "source")
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", tree, commit], check=True)
    try:
        _run(tree, RUN, "build", "--source", source, "--name", "tiny", "--workspace", space)
        _run(tree, SAY, space)
        _run(tree, RUN, "build", "--source", source, "--name", "tiny", "--workspace", space)
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    archive = FOLDER / f"{version}.tar.xz"
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in (space, source):
            tar.add(path, path.name, filter=lambda info: None if "/dagster" in info.name else info)
    return archive


def _run(tree: Path, code: str, *arguments: object) -> None:
    """A program by the code of a checkout, which its own modules come from."""
    child_env = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=tree, env=child_env, check=True
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for version, commit in KEPT.items():
        if not (FOLDER / f"{version}.tar.xz").exists():
            # A name that says nothing of this machine: the lake keeps where its source lay
            with tempfile.TemporaryDirectory(prefix="kept-") as folder:
                print(make(version, commit, Path(folder)))
