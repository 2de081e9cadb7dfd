"""The plug is pulled: what was not synced is gone. A copy of a mounted image is what the disk would hold then."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kits.fault_kit import (
    Repeats,
    answered,
    assert_recovers,
    errors,
    in_replies,
    living,
    wait_for,
)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    """Metadata goes to disk when somebody syncs, not by itself every five seconds: a cut loses all it can."""
    folder.mkdir(exist_ok=True)
    process = subprocess.run(["mount", "-o", "loop,commit=600", image, folder], capture_output=True)
    if process.returncode:
        pytest.skip("images of file systems can only be mounted by root")
    try:
        yield
    finally:
        wait_for(
            lambda: not subprocess.run(["umount", folder], capture_output=True).returncode,
            "it is unmounted",
            20,
        )


def used(workspace: Path) -> set[str]:
    """Keys of the replies that are stored: right after a kill all is still there."""
    return {key for (key,) in in_replies(workspace, "replies", "SELECT key FROM replies")}


def test_the_plug_is_pulled(corpus, whole, tally, server_kills, seed, tmp_path):
    rng = random.Random(seed + 3)
    fault = "the plug pulled"
    image = tmp_path / "image"
    disk = tmp_path / "disk"
    workspace = tmp_path / "disk" / "w"
    repeats = Repeats()
    with image.open("wb") as f:
        f.truncate(192 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    for k in range(server_kills):
        with mounted(image, disk):
            if k % 2 == 0:

                def written():
                    return len(used(workspace))
            else:

                def written():
                    return len(list(workspace.rglob("*.jpg")))

            num_wanted = written() + rng.randint(12, 40)
            with corpus.building(workspace) as build:
                wait_for(
                    lambda n=num_wanted, b=build, count=written: (
                        count() >= n or b.poll() is not None
                    ),
                    "something is written",
                )
                time.sleep(rng.uniform(0, 0.5))
                for pid in living(build.pid):  # it makes nothing more than it has
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                shutil.copy(
                    image, tmp_path / "cut"
                )  # what is on the disk, before anything is unmounted
                stored = used(workspace)
                tally.add(fault, tried=1)
        (tmp_path / "cut").replace(image)
        with mounted(image, disk):
            assert errors(workspace) == []
            lost_replies = {k for k in stored if k not in answered(workspace)}
            # a reply counts when it is synced: those that were being stored, at most, are lost
            assert len(lost_replies) <= 2 * 3, (
                f"{len(lost_replies)} of {len(stored)} stored replies are gone"
            )
            repeats.note(workspace)
            tally.add(fault, recovered=1)
    with mounted(image, disk):
        assert_recovers(corpus, workspace, whole, repeats, tally, fault)
