"""Which tests `make quick` runs: those of changed rooms, the nearest first; and its time limit skips, and says so."""

import subprocess
import sys
from pathlib import Path

from core.paths import ROOT
from tests.quick import OF_THE_HOUSE, files_to_test


def test_tests_beside_a_change_come_before_those_of_its_room() -> None:
    chosen = files_to_test(["annotate/progress.py", "warehouse/lake/checks.py", "README.md"])
    assert chosen == [
        *OF_THE_HOUSE,
        "tests/annotate/test_progress.py",
        "tests/warehouse/lake/test_checks.py",
        "tests/annotate",
        "tests/warehouse",
    ]
    assert all((ROOT / path).exists() for path in chosen)


def test_a_changed_test_is_chosen_and_a_kit_is_no_room() -> None:
    chosen = files_to_test(["tests/core/test_rows.py", "tests/kits/within.py"])
    assert chosen == [*OF_THE_HOUSE, "tests/core/test_rows.py", "tests/core"]


def test_tests_after_the_limit_are_skipped_and_counted(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.kits.within",
        "tests/test_quick.py",
        "-k",
        "kit_is_no_room",
    ]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env={"PROCCORPUS_TESTS_WITHIN_S": "0", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "1 skipped" in process.stdout
