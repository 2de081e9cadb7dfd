"""One version, wherever it is told."""

import re
import tomllib
from pathlib import Path

import proccorpus
from core.paths import ROOT, Workspace
from tests.kits.kept_workspaces import FOLDER, KEPT
from warehouse.lake import Lake


def test_package_changelog_and_citation_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert told
    assert newest
    assert {project["version"], told[1], newest[1]} == {proccorpus.__version__}


def test_a_workspace_of_each_version_in_the_changelog_is_kept() -> None:
    """That which is in preparation has none yet."""
    versions = re.findall(r"^## ([0-9.]+), 20", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [version for version in versions if version not in KEPT] == []
    assert sum((FOLDER / f"{version}.tar.xz").stat().st_size for version in KEPT) <= 2 << 20


def test_a_lake_says_it(tmp_path: Path) -> None:
    newest = "SELECT proccorpus FROM schema_versions ORDER BY version DESC LIMIT 1"
    assert Lake(Workspace(tmp_path)).rows(newest) == [(proccorpus.__version__,)]
