"""Lint, format, types and tests of what changed since main, within two minutes on two cores.

    make quick

Compared are the files of the working tree, those that git does not track too, with the commit where the branch left
main; on main itself with the last commit. The tests of a room are those in tests/<room>. Those beside a changed module,
and changed tests themselves, come first. What did not fit into the time is skipped, and counted: before a merge, run
`make test`.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TESTS_WITHIN_S = (
    60  # from the first test on; the rest of the two minutes is for imports and the last test
)
OF_THE_HOUSE = ("tests/test_imports.py", "tests/test_house.py")


def main() -> int:
    changed = changed_files()
    tests = files_to_test(changed)
    print(f"{len(changed)} changed files; tests: {' '.join(tests)}", flush=True)
    python_files = [
        path
        for path in changed
        if path.endswith(".py") and not path.startswith(("tests/", "docs/"))
    ]
    if python_files:
        types = subprocess.Popen(
            [str(BIN / "pyright"), "--pythonpath", sys.executable, *python_files]
        )
    else:
        types = None
    results = [
        run(str(BIN / "ruff"), "check", "."),
        run(str(BIN / "ruff"), "format", "--check", "."),
        run_tests(tests),
        types.wait() if types else 0,
    ]
    if any(results):
        return 1
    return 0


def changed_files() -> list[str]:
    """Paths that differ from where the branch left main, and those that git does not track; without deleted ones."""
    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    differing = git("diff", "--name-only", "--diff-filter=d", base[0])
    untracked = git("ls-files", "--others", "--exclude-standard")
    return sorted({*differing, *untracked})


def files_to_test(changed: Iterable[str]) -> list[str]:
    """Files and folders of tests, the nearest to the changes first.

    Example: of ["core/files.py"] the tests of the house, then tests/core.
    """
    nearest = []
    rooms = []
    for path in changed:
        parts = Path(path).parts
        is_test = parts[0] == "tests"
        if is_test and parts[-1].startswith("test_") and path.endswith(".py"):
            nearest.append(path)
        test_path = Path("tests", *parts[:-1], f"test_{parts[-1]}").as_posix()
        if (ROOT / test_path).is_file():
            nearest.append(test_path)
        room = parts[1] if is_test and len(parts) > 2 else parts[0]
        if room != "kits" and (ROOT / "tests" / room).is_dir():
            rooms.append(f"tests/{room}")
    return list(dict.fromkeys([*OF_THE_HOUSE, *sorted(nearest), *sorted(rooms)]))


def run_tests(tests: Sequence[str]) -> int:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PROCCORPUS_TESTS_WITHIN_S": str(TESTS_WITHIN_S),
    }
    options = ("-p", "tests.kits.within", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, env=environment
    ).returncode


def run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT).returncode


def git(*arguments: str) -> list[str]:
    """Lines that git prints; none where it fails, as without a branch main."""
    process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if process.returncode == 0:
        return process.stdout.splitlines()
    return []


if __name__ == "__main__":
    sys.exit(main())
