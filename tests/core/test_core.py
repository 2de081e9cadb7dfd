"""Files, addresses with secrets, cores of a process, and the one version."""

import math
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import proccorpus
from core import cores as of_cores
from core.cores import IS_OURS, THREADS, WithoutPandas, cpu_limit, tell_libraries, told_to_children
from core.errors import SecretInAddress, checked_address
from core.files import write_file
from core.paths import ROOT, Workspace
from tests.kits.kept_workspaces import FOLDER, KEPT
from warehouse.lake import Lake


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    former_umask = os.umask(request.param)
    yield request.param
    os.umask(former_umask)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], indirect=True)
def test_others_may_read_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "below/a.json"
    write_file(path, b"{}")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask
    write_file(path, b"[]")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(path.parent.iterdir()) == [path]


PW = "s3cr3t"


def test_an_address_with_a_secret_is_refused():
    for address in (f"http://h/#{PW}", f"s3://{PW}@b"):
        with pytest.raises(SecretInAddress) as raised:
            checked_address(address)
        assert PW not in str(raised.value)
    assert checked_address(f"SELECT 'http://u:{PW}@h'")


@pytest.mark.parametrize("own", ["", "0::/nothing/there\n"])
def test_where_nothing_says_so_there_is_no_limit(tmp_path: Path, own: str):
    assert cpu_limit(own, tmp_path) == math.inf


def test_workers_share_what_their_parent_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.delenv(IS_OURS, raising=False)
    with told_to_children(3):
        assert os.environ[THREADS] == "3"
    assert THREADS not in os.environ
    # What the user says counts; what we said for this process is no word of the user's
    monkeypatch.setattr(of_cores, "cores", lambda: 0)
    for by_user in (True, False):
        if by_user:
            monkeypatch.setenv(THREADS, "7")
        else:
            monkeypatch.delenv(THREADS)
        tell_libraries()
        assert os.environ[THREADS] == ("7" if by_user else "0")
        with told_to_children(3):
            assert os.environ[THREADS] == ("7" if by_user else "3")
        assert os.environ[THREADS] == ("7" if by_user else "0")
    monkeypatch.delenv(THREADS)
    monkeypatch.delenv(IS_OURS)


def test_only_an_import_in_python_finds_pandas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "meta_path", [WithoutPandas(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    assert find_spec("pandas")
    with pytest.raises(ModuleNotFoundError):
        __import__("pandas")  # a call, as compiled libraries make it


def test_package_changelog_and_citation_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert match
    assert newest
    assert {project["version"], match[1], newest[1]} == {proccorpus.__version__}


def test_a_workspace_of_each_version_in_the_changelog_is_kept() -> None:
    """That which is in preparation has none yet."""
    versions = re.findall(r"^## ([0-9.]+), 20", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [version for version in versions if version not in KEPT] == []
    assert sum((FOLDER / f"{version}.tar.xz").stat().st_size for version in KEPT) <= 2 << 20


def test_a_lake_says_it(tmp_path: Path) -> None:
    newest = "SELECT proccorpus FROM schema_versions ORDER BY version DESC LIMIT 1"
    assert Lake(Workspace(tmp_path)).rows(newest) == [(proccorpus.__version__,)]
