"""`--without CHECK` of exports and releases, as the remedies of checks print it; and what a release says of faults."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.reasons import REASONS
from tests.kits.cli_kit import Result, called
from tests.kits.made_corpus import Made
from warehouse.exports import EXPORT_KINDS

Run = Callable[..., Result]
LICENCE = ("--allow-licence", "unknown")


@pytest.fixture
def run(faulty: Made, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *words: called(capsys, *words, "--workspace", faulty.space.root)


def test_the_remedy_works_as_it_is_printed(run: Run, tmp_path: Path):
    [command] = re.findall(r"`proccorpus (export [^`]+)`", REASONS["camera_frozen"].remedy)
    result = run(
        *command.split(),
        "--out",
        tmp_path / "out",
        "--dataset",
        "tiny",
        *LICENCE,
        "--format",
        "json",
    )
    assert (result.code, result.json["episodes"]) == (0, 4), result
    assert "left out: 1 runs with camera_frozen: tiny 2\n" in result.err
    assert json.loads((tmp_path / "out" / "meta" / "info.json").read_text())["total_episodes"] == 4


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_every_kind_has_it(kind: str, run: Run):
    assert "--without" in run("export", kind, "--help").out


def test_checks_that_are_accepted_or_found_nothing_leave_nothing_out(run: Run, tmp_path: Path):
    run("accept", "tiny", "camera_black", "--why", "the lamp was off")
    words = ("--without", "camera_black", "--without", "camera_moved", *LICENCE, "--format", "json")
    result = run("export", "rabc", "--out", tmp_path / "out", *words)
    assert result.json["episodes"] == 5
    assert "left out: 0 runs with camera_black\nleft out: 0 runs with camera_moved\n" in result.err
    refused = run(
        "export", "rabc", "--out", tmp_path / "other", "--without", "camera_blak", *LICENCE
    )
    assert (refused.code, "did you mean camera_black" in refused.err) == (2, True)


def test_a_release_says_what_checks_found_and_leaves_it_out(run: Run, faulty: Made):
    full_result = run("release", "create", "all", *LICENCE, "--format", "json")
    assert full_result.json["faults"] == {"tiny": {"camera_black": 1, "camera_frozen": 1}}
    assert (
        "faults: tiny: camera_black in 1 run, camera_frozen in 1 run; look at them"
        in full_result.err
    )
    sentence = "- tiny: checks found faults that nobody accepted: camera_black in 1 run, camera_frozen in 1 run."
    assert sentence in Path(full_result.json["card"]).read_text().splitlines()

    less_result = run(
        "release", "create", "less", "--without", "camera_frozen", *LICENCE, "--format", "json"
    )
    assert less_result.json["faults"] == {"tiny": {"camera_black": 1}}
    [out] = less_result.json["left_out"]
    assert "they show 1 runs with camera_frozen (episodes 2)" in out["why"]
    assert "nobody accepted: camera_black in 1 run.\n" in Path(less_result.json["card"]).read_text()

    # The remedy keeps the other runs of its shards
    [takedown] = re.findall(r"proccorpus (takedown [^,]+),", out["remedy"])
    assert run(*takedown.split()).code == 0
    assert run("build", "--dataset", "tiny", "--workers", "1").code in (0, 3)
    kept_result = run(
        "release", "create", "kept", "--without", "camera_frozen", *LICENCE, "--format", "json"
    )
    assert (kept_result.json["left_out"], kept_result.json["faults"]) == (
        [],
        {"tiny": {"camera_black": 1}},
    )

    run("accept", "tiny", "camera_black", "--why", "the lamp was off")
    quiet = run("release", "create", "quiet", *LICENCE, "--format", "json")
    assert (quiet.json["faults"], "faults:" in quiet.err) == ({}, False)
