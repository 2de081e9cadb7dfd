"""`inspect --report`, `build --dataset`, and former names of commands."""

import base64
import io
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from cli.exporting import settings_model
from cli.former import COMMANDS, EXPORT_FLAGS, EXPORT_SETTINGS, present
from core.paths import ROOT
from core.settings import settings_of
from tests.kits.cli_kit import (
    DONE,
    PROGRAM,
    USAGE,
    Result,
    called,
    command,
    environment,
    look_up,
    proccorpus,
)
from tests.kits.faulty import make_source
from tests.kits.hdf5_writer import film
from tests.kits.lerobot_writer import v2_video, write_v2
from tests.kits.tiny_lerobot import make_dataset
from warehouse.exports import EXPORT_KINDS

Run = Callable[..., Result]
FRONT = "observation.images.front"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: called(capsys, "inspect", *words)


def test_one_page_shows_the_worst_runs(run, tmp_path):
    source = make_source(tmp_path / "a <b> set")
    result = run(source, "--full", "--report", "out.html")
    assert (result.code, result.err) == (0, "report: out.html\n")
    page = (tmp_path / "out.html").read_text()
    assert "a &lt;b&gt; set" in page
    assert not re.search(r"<script|<b> set|(src|href)=\"(?!data:)", page)
    assert f"{FRONT} is black for 2.0 s from 3.6 s on" in page
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


def test_a_finding_a_line_with_what_is_accepted(run, made_faulty, faulty, capsys):
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


def test_an_error_in_the_lines_is_a_failed_command(run, tmp_path):
    clean = write_v2(tmp_path / "clean", [6, 7], tasks=("",))
    assert run(clean, "--report", "out.jsonl").code == 0
    assert {line["severity"] for line in lines_of("out.jsonl").values()} == {"WARNING"}
    v2_video(clean, FRONT, 1).unlink()
    assert run(clean, "--report", "out.jsonl").code == 1
    assert lines_of("out.jsonl")["no_video"]["severity"] == "ERROR"


def test_another_ending_is_refused_before_anything_is_read(run, tmp_path):
    make_source(tmp_path / "set")
    refused = run(tmp_path / "set", "--report", "out.pdf")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: --report out.pdf: a report ends in .html, .jsonl\n"


FORMER = yaml.safe_load((ROOT / "tests/data/former_words.yaml").read_text())


@pytest.mark.parametrize(("former", "new_words"), [*FORMER])
def test_former_words_say_the_new_ones(former, new_words, capsys):
    assert present(former.split()) == new_words.split()
    assert capsys.readouterr().err == f"note: this is now `proccorpus {new_words}`\n"
    assert present(new_words.split()) == new_words.split()
    assert capsys.readouterr().err == ""


def test_former_options_and_names_lead_to_settings_and_commands():
    settings = set()
    for kind in EXPORT_KINDS.values():
        settings |= settings_of(settings_model(kind)).keys()
    assert {*EXPORT_SETTINGS, *EXPORT_FLAGS} == settings
    for words in COMMANDS.values():
        look_up(words.split(), whole=False)


def test_no_findings_is_said_only_where_all_is_understood(tmp_path):
    root = write_v2(tmp_path / "set", [6, 7])
    plain = command("inspect", root, cwd=tmp_path)
    assert "observation.state (3 float32)" in plain.out
    assert "part_not_used" not in plain.out
    (root / "quux_readings.bin").write_bytes(b"x")
    result = command("inspect", root, cwd=tmp_path)
    assert "not used      file quux_readings.bin: nothing names it" in result.out
    assert "part_not_used" in result.out
    assert "No findings" not in result.out
    parts = command("inspect", root, "--format", "json", cwd=tmp_path).json["parts"]
    assert ("file", "quux_readings.bin", "unknown") in [
        (p["kind"], p["name"], p["status"]) for p in parts
    ]
    whole = command("inspect", root, "--full", cwd=tmp_path)
    assert "num_times" in whole.out.replace("num_\ntimes", "num_times")


def test_rows_that_are_not_read_are_not_called_missing(tmp_path):
    with h5py.File(tmp_path / "run.hdf5", "w") as file:
        file["quux_forces"] = np.random.default_rng(0).normal(size=(6, 6))
        file["cam_front"] = film(0, 0, 6)
    output = command("inspect", tmp_path, cwd=tmp_path).out
    assert "there are no rows of state or action" not in output
    assert "quux_forces" in output


def test_a_dataset_is_built_again_as_it_was(own, tmp_path):
    configs = own.rows("SELECT dataset, config FROM build_configs")
    events = tmp_path / "events.jsonl"
    result = command(
        "build", "--dataset", "tiny", "--events", events, cwd=tmp_path, workspace=own.space.root
    )
    assert (result.code, result.err) == (DONE, "")
    assert "Everything is up to date" in result.out
    assert [json.loads(line) for line in events.read_text().splitlines()] == [
        {"event": "plan", "stages": 0},
        {"event": "end", "exit_code": 0},
    ]
    # the chunk size and the embeddings that no flag has said again
    assert own.rows("SELECT dataset, config FROM build_configs") == configs


def test_lines_of_its_log_are_json_where_that_is_asked_for(own, tmp_path):
    # Each with run, dataset, chunk and stage; what fails is an error of its stage
    videos = sorted(own.source.rglob("*.mp4"))
    videos[0].write_text("no video any more")
    words = ("build", "--source", own.source, "--name", "again")
    result = proccorpus(*words, cwd=tmp_path, workspace=tmp_path / "w", PROCCORPUS_LOG="json")
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert all(
        line.keys() == {"time", "level", "run", "dataset", "chunk", "stage", "message"}
        for line in lines
    )
    ended = [line for line in lines if line["stage"]]
    assert {line["stage"] for line in ended} >= {"frames", "progress", "shards"}
    assert {(line["dataset"], line["chunk"], line["level"]) for line in ended} == {
        ("again", 0, "info")
    }
    assert len({line["run"] for line in ended}) == 1
    assert ended[0]["run"]

    words = ("build", "--dataset", "cups")
    refused = proccorpus(*words, cwd=tmp_path, workspace=tmp_path / "w", PROCCORPUS_LOG="json")
    (line,) = map(json.loads, refused.err.splitlines())
    assert (refused.code, line["level"], line["stage"]) == (USAGE, "error", None)
    assert "--dataset cups" in line["message"]


def test_a_build_that_is_told_to_end_does_so_soon(tmp_path):
    source = make_dataset(tmp_path / "tiny")
    workspace = tmp_path / "w"
    words = ("build", "--source", source, "--name", "tiny", "--workspace", workspace)
    pipe = subprocess.PIPE
    line = [PROGRAM, *words]
    with subprocess.Popen(line, env=environment(), stdout=pipe, stderr=pipe, text=True) as running:
        while not (workspace / "catalog.sqlite").exists() and running.poll() is None:
            time.sleep(0.05)
        start_s = time.monotonic()
        running.terminate()
        _, err = running.communicate()
    assert time.monotonic() - start_s < 10
    assert running.returncode == 143
    assert err.endswith("interrupted: what was finished is kept, run again to go on\n")
    assert command(*words, cwd=tmp_path).code == 0
