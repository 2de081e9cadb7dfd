"""`inspect --report`: a page and JSON lines, each with what is wrong, where, and what it does to labels."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.kits.cli_kit import Result, called
from tests.kits.faulty import make_source
from tests.kits.lerobot_writer import v2_video, write_v2
from tests.kits.made_corpus import Made

Run = Callable[..., Result]
FRONT = "observation.images.front"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: called(capsys, "inspect", *words)


def test_one_page_shows_the_worst_runs(run: Run, tmp_path: Path):
    source = make_source(tmp_path / "a <b> set")
    result = run(source, "--full", "--report", "out.html")
    assert (result.code, result.err) == (0, "report: out.html\n")
    page = (tmp_path / "out.html").read_text()
    assert "a &lt;b&gt; set" in page
    assert not re.search(r"<script|<b> set|(src|href)=\"(?!data:)", page)
    assert f"{FRONT} is black for 2.0 s from 3.6 s on" in page
    assert "Samples of this stretch show nothing from this camera." in page
    assert "proccorpus export lerobot --without camera_black" in page
    # The stretch on its run, and its pictures: one just before, a black one in the middle
    [black] = [part for part in page.split('<div class="run">')[1:] if "camera_black" in part]
    assert '<rect x="250.00" width="138.89"' in black
    assert re.findall(r"(just before|in the middle): [\d.]+ s, frame (\d+)", black) == [
        ("just before", "17"),
        ("in the middle", "23"),
    ]
    jpegs = re.findall(r"base64,([^\"]+)", black)
    first_picture, middle = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg)))) for jpeg in jpegs
    )
    assert first_picture.mean() > 40 > 10 > middle.mean()
    assert not re.search(r"grade|score|/ ?100\b", page, re.IGNORECASE)


def lines_of(path: str) -> dict[str, dict]:
    """Lines of a report by their codes."""
    lines = map(json.loads, Path(path).read_text().splitlines())
    return {line["code"]["value"]: line for line in lines}


def test_a_finding_a_line_with_what_is_accepted(
    run: Run, made_faulty: Made, faulty: Made, capsys: pytest.CaptureFixture[str]
):
    words = ("--comment", "the lamp was off", "--author", "ann", "--workspace", faulty.space.root)
    called(capsys, "say", "acceptance", "tiny", "camera_black", *words)
    source = made_faulty.source
    workspace_options = ("--workspace", faulty.space.root)
    assert run(source, "--full", "--report", "out.jsonl", *workspace_options).code == 0
    lines = lines_of("out.jsonl")
    frozen = lines["camera_frozen"]
    black = lines["camera_black"]
    assert (frozen["severity"], black["severity"]) == ("WARNING", "INFO")
    assert frozen["location"] == {
        "path": json.loads(frozen["original_output"])["file"] or str(source)
    }
    assert frozen["message"].startswith(f"episode 2, {FRONT}: {FRONT} shows one picture")
    assert json.loads(black["original_output"])["accepted_why"] == "the lamp was off"
    [stretch] = json.loads(frozen["original_output"])["stretches"]
    assert (stretch["start_frame"], stretch["end_frame"], stretch["start_s"]) == (10, 22, 2.0)
    # What is accepted is no part of the page's worst runs
    run(source, "--full", "--report", "out.html", *workspace_options)
    page_start, accepted = Path("out.html").read_text().split('<section class="accepted">')
    assert ("camera_black" in page_start, "camera_frozen: " in page_start) == (False, True)
    assert "accepted, episode 0" in accepted


def test_an_error_in_the_lines_is_a_failed_command(run: Run, tmp_path: Path):
    clean = write_v2(tmp_path / "clean", [6, 7], tasks=("",))
    assert run(clean, "--report", "out.jsonl").code == 0
    assert {line["severity"] for line in lines_of("out.jsonl").values()} == {"WARNING"}
    v2_video(clean, FRONT, 1).unlink()
    assert run(clean, "--report", "out.jsonl").code == 1
    assert lines_of("out.jsonl")["no_video"]["severity"] == "ERROR"


def test_another_ending_is_refused_before_anything_is_read(run: Run, tmp_path: Path):
    make_source(tmp_path / "set")
    refused = run(tmp_path / "set", "--report", "out.pdf")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: --report out.pdf: a report ends in .html, .jsonl\n"
    former = run(tmp_path / "set", "--report", "out.junit.xml")
    assert (former.code, "(*.jsonl)" in former.err) == (2, True)
