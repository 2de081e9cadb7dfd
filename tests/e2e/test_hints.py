"""What commands and pages advise is run as it stands, on a dataset without a licence and without outcomes."""

import html
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import httpx
import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from explorer.app import create_app
from tests.kits.cli_kit import DONE, PROGRAM, Result, called, command, environment
from tests.kits.lake_kit import change
from tests.kits.small_sources import RECORDINGS, write_v2

COPIED = re.compile(r"<code[^>]*>(proccorpus [^<]+)</code>|data-copy=\"(proccorpus [^\"]+)\"")
NEXT = re.compile(r"^(?:Next:|     ) .*?   (proccorpus .*)$", re.MULTILINE)
type Run = Callable[[str], None]
SERVERS = {"explore"}  # they run until they are stopped
LONG = {
    "train",
    "eval",
}  # a model takes minutes: tests/training and tests/e2e/test_cli_export.py run these


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Result]:
    """A folder with a workspace in it, and what the build said; not for changing."""
    folder = tmp_path_factory.mktemp("hints")
    # The last is a copy of the first: the checkup has something to say
    write_v2(folder / "arm", (*RECORDINGS[:3], RECORDINGS[0]))
    built = command("build", "--source", folder / "arm", "--workers", 1, cwd=folder)
    assert built.code == DONE, built.err
    return folder, built


@pytest.fixture
def folder(made: tuple[Path, Result], tmp_path) -> Path:
    """A copy of its own for what commands write."""
    return shutil.copytree(made[0], tmp_path / "hints")


def answers(folder: Path, *words: str) -> None:
    """A server that a line starts answers at the address that it prints."""
    env = environment(BROWSER="true")
    pipe = subprocess.PIPE
    line = [str(PROGRAM), *words, "--port", "0"]
    with subprocess.Popen(line, cwd=folder, env=env, stdout=pipe, text=True) as server:
        try:
            assert server.stdout
            [url] = re.findall(r"http://\S+", server.stdout.readline())
            page = httpx.get(url, follow_redirects=True, timeout=120)
            assert page.status_code == 200, page.text
        finally:
            server.terminate()


@pytest.fixture
def run(folder: Path, capsys, monkeypatch) -> Callable[[str], None]:
    """Run a line as it stands, started from the folder that has the workspace."""
    monkeypatch.chdir(folder)

    def run_line(line: str) -> None:
        program, *words = shlex.split(line, comments=True)
        assert program == "proccorpus"
        if words[0] in SERVERS:
            answers(folder, *words)
        elif words[0] not in LONG:
            result = called(capsys, *words)
            assert result.code == DONE, f"{line}: {result.err}"

    return run_line


def test_each_next_line_of_inspect_and_build_can_be_run(made, folder, run):
    inspected = command("inspect", made[0] / "arm", cwd=folder)
    lines = [*NEXT.findall(inspected.out), *NEXT.findall(made[1].out)]
    assert [line.split()[1] for line in lines] == ["build", "show", "explore", "release"]
    assert lines[-1].endswith("release create v1 --allow-licence unknown")
    for line in lines:
        run(line)


PAGES = ("/", "/episodes", "/releases", "/training", "/leaderboard", "/review", "/sql")


def test_each_command_on_a_page_can_be_run(folder, run):
    """A line that stands on several pages is run once."""
    lines: dict[str, None] = {}
    app = create_app(Workspace(folder / "workspace"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for address in PAGES:
            page = client.get(address)
            assert page.status_code == 200
            copied = [html.unescape(first or second) for first, second in COPIED.findall(page.text)]
            assert copied or address not in ("/episodes", "/releases", "/training")
            lines |= dict.fromkeys(copied)
    for line in lines:
        run(line)


@pytest.mark.slow
def test_what_a_training_advises_can_be_run(folder, run):
    """Of a corpus so small that no run is held out to score a model on."""
    recipe = folder / "quick.yaml"
    recipe.write_text("like: laptop\nname: quick\ntrain: {steps: 30, batch: 8}\n")
    trained = command("train", "--recipe", recipe, cwd=folder)
    assert trained.code == DONE, trained.err
    lines = NEXT.findall(trained.out)
    assert [line.split()[1] for line in lines] == ["reward"]
    for line in lines:
        run(line)
    scored = command("eval", "--benchmark", "held-out", "--model", "latest", cwd=folder)
    assert "holds no run out of training" in scored.err


def test_a_refused_export_of_many_rates_names_what_works(folder, run):
    """Each run with a rate of its own, as in recordings whose frames were counted by hand."""
    change(
        Workspace(folder / "workspace"),
        "UPDATE episode_content SET fps = 18.43 + 0.07 * episode_index / 3",
    )
    line = "proccorpus export lerobot --allow-licence unknown --out exported"
    refused = command(*shlex.split(line)[1:], cwd=folder)
    assert refused.code != DONE
    options = re.findall(r"--fps [\d.]+|--where '[^']+'", refused.err)
    assert [option.split()[0] for option in options] == ["--fps", "--where"]
    for number, option in enumerate(options):
        run(f"{line}-{number} {option}")


def test_duckdb_itself_opens_the_lake_by_the_lines_that_are_printed(folder):
    lines = command("sql", "--attach", cwd=folder).out
    with duckdb.connect() as con:
        con.execute("SET autoinstall_known_extensions = false")
        con.execute(lines)
        assert con.execute("SELECT count(*) FROM episode_facts").fetchall() == [(4,)]
