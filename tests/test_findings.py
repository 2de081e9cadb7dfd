"""The table of findings names each script and no other; `make findings` runs them."""

import re
import subprocess

from core.paths import ROOT

SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))


def test_table_names_each_script_and_no_other():
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/findings.md").read_text(), re.MULTILINE)
    assert sorted(rows) == [path.stem for path in SCRIPTS]
    assert len(rows) >= 12


def test_scripts_are_whole_and_name_exact_versions():
    for path in SCRIPTS:
        subprocess.run(["sh", "-n", str(path)], check=True)
        packages = re.findall(r'^packages="(.+)"$', path.read_text(), re.MULTILINE)
        assert packages, path
        assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.]+", name) for name in packages[0].split()), path
