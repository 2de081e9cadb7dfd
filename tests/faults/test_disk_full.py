"""Every folder that is written to runs full, one after the other, again and again: one line each, and the same end."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kits.cli_kit import FAILED, Result, ok, proccorpus, without_progress
from tests.kits.fault_kit import ROOT, Repeats, assert_same_end, errors
from tests.kits.servers import free_port

SITES = {
    "lake": 64,
    "keyframes": 100,
    "responses": 220,
    "responses/packs": 48,
    "shards": 160,
    "": 200,
}  # KiB at first
GROWTH = 12
ENOUGH_KIB = 1 << 17
SAID = re.compile(
    r"error: the disk that holds (\S+) is full \(\d+ KiB free\): make room there .* run the same again"
)


@contextmanager
def small_disks(root: Path, sizes: dict[str, int]) -> Iterator[dict[Path, int]]:
    """A file system of so many KiB at each folder below the root."""
    mounted: dict[Path, int] = {}
    try:
        for site, size in sorted(sizes.items()):
            folder = root / site
            folder.mkdir(parents=True, exist_ok=True)
            process = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", folder], capture_output=True
            )
            if process.returncode:
                pytest.skip("file systems can only be mounted by root")
            mounted[folder] = size
        yield mounted
    finally:
        for folder in sorted(mounted, reverse=True):
            subprocess.run(["umount", "--lazy", folder], check=True)


def enlarge(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}k", folder], check=True)


def full_disk(err: str) -> Path:
    """The folder that the one line on stderr names, beside what says how far a build is."""
    err = without_progress(err)
    assert len(err.splitlines()) == 1, err
    match = SAID.match(err)
    assert match, err
    return Path(match[1])


def test_a_build(corpus, whole, tally, tmp_path, pytestconfig):
    workspace = tmp_path / "workspace"
    repeats = Repeats()
    met = set()
    growth = 64 if pytestconfig.getoption("--short") else GROWTH
    with small_disks(workspace, SITES) as disks:
        for _ in range(24):
            result = corpus.build(workspace)
            if result.returncode == 0:
                break
            full_folder = full_disk(result.stderr)
            site = max(
                (d for d in disks if d == full_folder or d in full_folder.parents),
                key=lambda d: len(d.parts),
            )
            met.add(str(site.relative_to(workspace)))
            assert [e for e in errors(workspace) if e["what"] != "disk space"] == [], (
                f"{site} is full"
            )
            repeats.note(workspace)
            tally.add("a disk full", tried=1, recovered=1)
            disks[site] = growth * disks[site]
            enlarge(site, disks[site])
        assert result.returncode == 0, result.stderr
        assert met == {site or "." for site in SITES}
        num_repeated = repeats.count(workspace)
        tally.add(
            "a disk full", differences=len(whole.differences(workspace)), repeated=num_repeated
        )
        assert num_repeated == 0
        for disk in disks:  # or the doctor calls what is left an error
            enlarge(disk, ENOUGH_KIB)
        assert_same_end(workspace, whole)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte is free while the block runs."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as f, suppress(OSError):
            while f.write(bytes(4096)):
                pass
        yield
    finally:
        filler.unlink()


def test_releases_and_exports(reference, tally, tmp_path):
    workspace = tmp_path / "workspace"
    subprocess.run(["cp", "-a", reference, workspace], check=True)
    export = ("export", "datasets", "--allow-licence", "unknown", "--out", tmp_path / "out")

    def run(*words: object) -> Result:
        return proccorpus(*words, cwd=tmp_path, workspace=workspace)

    with small_disks(tmp_path, {"workspace/releases": 64, "out": 256}) as disks:
        with filled(workspace / "releases"):
            result = run("release", "create", "one", "--allow-licence", "unknown")
            assert result.code == FAILED
            full_folder = full_disk(result.err)
            assert workspace / "releases" in (full_folder, *full_folder.parents)
        assert "No release yet" in run("show", "releases").out
        assert errors(workspace) == []
        ok(run("release", "create", "one", "--allow-licence", "unknown"))
        ok(run("release", "verify", "one"))
        result = run(*export)
        assert result.code == FAILED
        assert full_disk(result.err) == tmp_path / "out"
        assert not (tmp_path / "out" / "manifest.json").exists()
        enlarge(tmp_path / "out", ENOUGH_KIB)
        assert run(*export).code == 0
        assert (tmp_path / "out" / "manifest.json").exists()
        del disks
    tally.add("a disk full", tried=2, recovered=2)


def test_downloads(tally, tmp_path):
    """What is fetched from a web server has no room: said in one line, and gone on with where it stopped."""
    port = free_port()
    workspace = tmp_path / "workspace"
    words = [
        sys.executable,
        "-m",
        "http.server",
        port,
        "--bind",
        "127.0.0.1",
        "--directory",
        ROOT / "samples",
    ]
    server = subprocess.Popen(
        [str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/sim_short/"
    try:
        with small_disks(workspace, {"sources": 256}):
            build = ("build", "--source", url, "--name", "short", "--episodes", "0-1")
            result = proccorpus(*build, cwd=tmp_path, workspace=workspace)
            assert result.code == FAILED
            full_folder = full_disk(result.err)
            assert workspace / "sources" in (full_folder, *full_folder.parents)
            enlarge(workspace / "sources", ENOUGH_KIB)
            ok(proccorpus(*build, cwd=tmp_path, workspace=workspace))
            assert errors(workspace, hashes=True) == []
    finally:
        server.kill()
        server.wait()
    tally.add("a disk full", tried=1, recovered=1)
