"""The package as others install it: built from a copy of the code, it serves its own documentation."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import httpx
import pytest

from core.paths import ROOT
from tests.kits.cli_kit import environment

pytestmark = pytest.mark.slow
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "mkdocs.yml", "docs")
TOOLS = Path(sys.executable).parent


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = environment(NO_MKDOCS_2_WARNING="1")
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path) -> Path:
    """The contents of the wheel, in a folder of their own."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rooms = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    for name in (*NEEDED, *rooms):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "docs_site")
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    site = run(copy, str(TOOLS / "mkdocs"), "build", "--strict", "--quiet")
    assert site.returncode == 0, site.stderr
    options = ("--wheel", "--python", sys.executable, "--out-dir", str(tmp_path / "dist"))
    built = run(copy, str(TOOLS / "uv"), "build", *options)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip(f"the tool that builds wheels cannot be had: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as contents:
        contents.extractall(tmp_path / "installed")
    return tmp_path / "installed"


def test_an_installed_package_serves_its_documentation_and_each_page_leads_into_it(
    installed, own, tmp_path
):
    words = (
        "explore",
        "--no-open",
        "--no-token",
        "--port",
        "0",
        "--workspace",
        str(own.space.root),
    )
    env = environment(PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    command = [sys.executable, str(installed / "proccorpus.py"), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, text=True) as server:
        try:
            assert server.stdout
            [url] = re.findall(r"http://[^/\s]+", server.stdout.readline())
            with httpx.Client(base_url=url, timeout=120, follow_redirects=True) as client:
                assert "<title>Start here - proccorpus" in client.get("/docs").text
                for address in ("/", "/review", "/episode/tiny/0"):
                    [link] = re.findall(r'href="(/docs/[^"#]+)[^"]*"', client.get(address).text)[:1]
                    assert client.get(link).status_code == 200
                assert client.get("/docs/search/search_index.json").json()["docs"]
        finally:
            os.kill(server.pid, 15)
