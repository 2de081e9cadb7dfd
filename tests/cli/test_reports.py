"""`inspect --report`: a page, Markdown, SARIF and JUnit, each with what is wrong, where, and what it does to labels."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from PIL import Image

from tests.kits.cli_kit import Result, called
from tests.kits.faulty import make_source
from tests.kits.lerobot_writer import v2_video, write_v2
from tests.kits.made_corpus import Made

Run = Callable[..., Result]
FRONT = "observation.images.front"
# What SARIF 2.1.0 asks of the parts that are written; no part has others
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
RESULT = {
    "required": ["ruleId", "ruleIndex", "level", "message", "locations", "properties"],
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": TEXT,
        "locations": {
            "items": {
                "required": ["physicalLocation"],
                "properties": {
                    "physicalLocation": {
                        "required": ["artifactLocation"],
                        "properties": {"artifactLocation": {"properties": {"uri": {"pattern": "^[^ <>\"{}|^`]+$"}}}},
                    },
                    "logicalLocations": {"items": {"required": ["name", "kind"], "additionalProperties": False,
                                                   "properties": {"name": {}, "kind": {}}}},
                },
                "additionalProperties": False,
            }
        },
        "properties": {"type": "object"},
        "suppressions": {
            "items": {
                "required": ["kind"],
                "properties": {"kind": {"enum": ["inSource", "external"]},
                               "status": {"enum": ["accepted", "underReview", "rejected"]},
                               "justification": {"type": "string"}},
                "additionalProperties": False,
            }
        },
    },
    "additionalProperties": False,
}  # fmt: skip
RULE = {
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "shortDescription": TEXT, "help": TEXT},
    "additionalProperties": False,
}
DRIVER = {
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "rules": {"items": RULE},
    },
    "additionalProperties": False,
}
SARIF = {
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string"},
        "version": {"const": "2.1.0"},
        "runs": {
            "items": {
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {"driver": DRIVER},
                        "additionalProperties": False,
                    },
                    "results": {"items": RESULT},
                },
                "additionalProperties": False,
            }
        },
    },
    "additionalProperties": False,
}


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


def test_sarif_is_what_its_readers_expect(run: Run, made_faulty: Made, faulty: Made, capsys):
    words = ("--comment", "the lamp was off", "--author", "ann", "--workspace", faulty.space.root)
    called(capsys, "say", "acceptance", "tiny", "camera_black", *words)
    source = made_faulty.source
    workspace_options = ("--workspace", faulty.space.root)
    assert run(source, "--full", "--report", "out.sarif", *workspace_options).code == 0
    log = json.loads(Path("out.sarif").read_text())
    jsonschema.Draft202012Validator(SARIF).validate(log)
    results = {row["ruleId"]: row for row in log["runs"][0]["results"]}
    rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
    assert all(rules[row["ruleIndex"]] == name for name, row in results.items())
    frozen = results["camera_frozen"]
    black = results["camera_black"]
    assert (frozen["level"], "suppressions" in frozen) == ("warning", False)
    assert black["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "ann: the lamp was off"}
    ]
    [stretch] = frozen["properties"]["stretches"]
    assert (stretch["start_frame"], stretch["end_frame"], stretch["start_s"]) == (10, 22, 2.0)
    assert frozen["locations"][0]["logicalLocations"] == [{"name": "episode 2", "kind": "episode"}]
    # What is accepted is no part of the page's worst runs
    run(source, "--full", "--report", "out.html", *workspace_options)
    page_start, accepted = Path("out.html").read_text().split('<section class="accepted">')
    assert ("camera_black" in page_start, "camera_frozen: " in page_start) == (False, True)
    assert "accepted, episode 0" in accepted


def test_junit_fails_as_the_command_does(run: Run, tmp_path: Path):
    clean = write_v2(tmp_path / "clean", [6, 7], tasks=("",))
    assert run(clean, "--report", "clean.junit.xml").code == 0
    suite = ElementTree.parse("clean.junit.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "3")
    v2_video(clean, FRONT, 1).unlink()
    assert run(clean, "--report", "clean.junit.xml").code == 1
    suites = ElementTree.parse("clean.junit.xml").getroot()
    failed = [case for case in suites[0] if case.find("failure") is not None]
    assert [case.get("classname") for case in failed] == ["no_video"]
    assert suites.get("failures") == "1"
    assert suites.get("tests") == str(len(suites[0]))
    assert "Nothing is labelled of it" in (failed[0][0].text or "")


def test_markdown_has_every_finding_of_several_datasets(run: Run, tmp_path: Path):
    for name in ("cups", "plates"):
        make_source(tmp_path / "lab" / name)
    run(tmp_path / "lab", "--full", "--report", "out.md")
    text = Path("out.md").read_text()
    assert text.startswith(f"# {tmp_path}/lab\n\n- 2 datasets\n- 10 of 10 episodes usable\n")
    assert "## camera_black: warning, episode 0\n" in text
    for name in ("cups", "plates"):
        assert f"| {name}, episode 2, {FRONT} | {FRONT} shows one picture for 2.4 s" in text


def test_another_ending_is_refused_before_anything_is_read(run: Run, tmp_path: Path):
    make_source(tmp_path / "set")
    refused = run(tmp_path / "set", "--report", "out.pdf")
    assert refused.code == 2
    assert (
        refused.err == "error: --report out.pdf: a report ends in .html, .md, .sarif, .junit.xml\n"
    )
    assert refused.out == ""
