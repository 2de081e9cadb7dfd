"""Which newer releases of what we depend on work.

    make newest
    make newest NEWEST="--hold av tests/training tests/eval"   # some tests, with the pin of av

Of each main dependency (pyproject.toml, as `make constraints` pins them) the newest release goes into .venv-newest,
also beyond what other packages allow: that is to be known. Families whose packages need one version (DuckDB and its
extensions, Dagster and its packages) keep to their own rules. The quick tests run there, and those that fail run again
with the pins. Which package broke a test: hold the one that its message names, and run that test again.

Prints what moved as a table in Markdown, and the tests that fail with the newest alone.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement  # comes with pytest

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv/bin"
ENVIRONMENT = ROOT / ".venv-newest"
REPORT = "PROCCORPUS_NEWEST"  # variable: the file to which failing tests are written
EXTRAS = (
    "train",
    "serve",
    "rl",
    "exports",
    "phash",
    "zarr",
    "cloud",
    "scale",
    "dev",
)  # as `make constraints` has them
FAMILIES = ("duckdb", "dagster")
KEPT = {"sqlalchemy"}  # its bound has a reason, which pyproject.toml states
# What has to move with a package, though we do not ask for it
COMPANIONS = {"torchcodec", "datasets"}
NOT_RUN = ("tests/test_dependencies_page.py",)  # it compares what is installed with the pins
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)
REQUIREMENT = re.compile(r"^([\w.-]+)(\[[^\]]*\])?(.*)$")


def pytest_runtest_logreport(report: Any) -> None:
    _note(report)


def pytest_collectreport(report: Any) -> None:
    _note(report)


def _note(report: Any) -> None:
    if not report.failed or "PYTEST_XDIST_WORKER" in os.environ:
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else report.longrepr).strip().splitlines()
    with Path(os.environ[REPORT]).open("a") as file:
        file.write(
            json.dumps({"test": report.nodeid, "why": lines[0] if crash else lines[-1]}) + "\n"
        )


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Version by name of a list of pins."""
    return {plain(name): version for name, version in PIN.findall(path.read_text())}


def requirements(pinned: dict[str, str]) -> dict[str, str]:
    """By name what we ask for, with its pin as the least version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement_lines = [*project["dependencies"], *COMPANIONS]
    for extra in EXTRAS:
        requirement_lines += project["optional-dependencies"][extra]
    loose = {}
    for line in requirement_lines:
        parts = REQUIREMENT.match(line)
        assert parts is not None
        name = plain(parts[1])
        loose[name] = line if name in KEPT else f"{name}{parts[2] or ''}>={pinned[name]}"
    return loose


def newest(
    lines_by_name: dict[str, str], folder: Path, held_lines: Iterable[str] = ()
) -> dict[str, str]:
    """Versions by name of all that is to be installed. `held_lines`: lines that a package has to keep to."""
    rules = [
        line
        for name, line in lines_by_name.items()
        if not name.startswith(FAMILIES) and name not in KEPT
    ]
    names = {REQUIREMENT.sub(r"\1", line) for line in held_lines}
    rules = [line for line in rules if plain(REQUIREMENT.sub(r"\1", line)) not in names]
    (folder / "overrides.txt").write_text("\n".join([*rules, *held_lines]))
    (folder / "asked.in").write_text("\n".join(lines_by_name.values()))
    # Pins that stand in the output already are kept to, but for those that may move
    pinned = re.sub(r" \\\n +--hash=\S+", "", (ROOT / "constraints.txt").read_text())
    (folder / "newest.txt").write_text(pinned)
    upgrade_options = list(
        chain.from_iterable(("--upgrade-package", name) for name in lines_by_name)
    )
    lists = [
        "--override",
        folder / "overrides.txt",
        folder / "asked.in",
        "-o",
        folder / "newest.txt",
    ]
    compiled = [
        "pip",
        "compile",
        "--quiet",
        "--no-emit-index-url",
        "--no-header",
        "--python-version",
        "3.12",
    ]
    subprocess.run(
        [BIN / "uv", *compiled, *upgrade_options, *lists], check=True, stdout=subprocess.DEVNULL
    )
    return pins(folder / "newest.txt")


def install(*words: str | Path, check: bool = True) -> None:
    """Put packages into the environment, whatever they say of one another."""
    pip = [BIN / "uv", "pip", "install", "--quiet", "--python", ENVIRONMENT / "bin/python"]
    subprocess.run([*pip, "--no-deps", *words], check=check)


def make_environment(versions: dict[str, str], folder: Path) -> None:
    """The environment afresh, with our own packages and the small weights."""
    venv = [BIN / "uv", "venv", "--quiet", "--clear", "--python", BIN / "python", ENVIRONMENT]
    subprocess.run(venv, check=True)
    (ENVIRONMENT / "bin/uv").symlink_to(BIN / "uv")  # for tests that make environments
    pinned = folder / "install.txt"
    pinned.write_text("\n".join(f"{name}=={version}" for name, version in versions.items()))
    install("-r", pinned)
    install("-e", ROOT, "-e", ROOT / "plugins/lerobot_reward_proccorpus")
    install("--require-hashes", "-r", ROOT / "constraints-weights.txt", check=False)


def holders(name: str, pinned: str, newest: str) -> list[str]:
    """Packages of others whose bounds allow the pin and exclude the newest release."""
    holder_lines = set()
    for package in distributions():
        for line in package.requires or ():
            requirement = Requirement(line)
            is_bound = plain(requirement.name) == name and requirement.specifier.contains(
                pinned, prereleases=True
            )
            if is_bound and not requirement.specifier.contains(newest, prereleases=True):
                holder_lines.add(f"{package.metadata['Name']} ({requirement.specifier})")
    return sorted(line for line in holder_lines if not line.startswith("proccorpus "))


def failures(python: Path, folder: Path, tests: list[str]) -> dict[str, str]:
    """Which of some tests fail, or of all that are quick, and the first line of why."""
    report = folder / "failures.jsonl"
    report.write_text("")
    command = [
        "-m",
        "pytest",
        "-p",
        "tests.newest",
        "-n",
        "2",
        "--no-loadscope-reorder",
        "--tb=line",
    ]
    command += tests or ["--dist", "loadfile", *(f"--ignore={path}" for path in NOT_RUN)]
    environment = os.environ | {REPORT: str(report), "OMP_NUM_THREADS": "1"}
    subprocess.run([python, *command], cwd=ROOT, env=environment, check=False)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return {line["test"]: line["why"] for line in lines}


def main() -> None:
    """Install, run, print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--list", action="store_true", help="print what would move, and install nothing"
    )
    options.add_argument(
        "--hold", action="append", default=[], metavar="PACKAGE", help="keep it at its pin"
    )
    options.add_argument(
        "tests", nargs="*", help="files of tests; all that are quick where none is named"
    )
    asked_for = options.parse_args()
    pinned = pins(ROOT / "constraints.txt")
    lines_by_name = requirements(pinned)
    held_lines = [f"{name}=={pinned[name]}" for name in map(plain, asked_for.hold)]
    failed = dict[str, str]()
    anyhow = dict[str, str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = newest(lines_by_name, folder, held_lines)
        if not asked_for.list:
            make_environment(versions, folder)
            failed = failures(ENVIRONMENT / "bin/python", folder, asked_for.tests)
        if failed:
            anyhow = failures(BIN / "python", folder, [*failed])
    print("\n| package | pinned | newest | beyond the bounds of |\n|---|---|---|---|")
    for name in sorted(name for name in lines_by_name if versions[name] != pinned[name]):
        bounds = "; ".join(holders(name, pinned[name], versions[name]))
        print(f"| {name} | {pinned[name]} | {versions[name]} | {bounds} |")
    print(f"\n{len(failed)} failures; with the pins fail as well: {len(anyhow)}")
    for test in failed.keys() - anyhow.keys():
        print(f"{test}\n    {failed[test][:300]}")


if __name__ == "__main__":
    sys.exit(main())
