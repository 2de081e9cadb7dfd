"""`build --dataset`: a dataset of the workspace again, as it was built last, and how far it is for programs."""

import json
import subprocess
import time

from tests.kits.cli_kit import DONE, PROGRAM, USAGE, command, environment, proccorpus
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import make_dataset


def test_a_dataset_is_built_again_as_it_was(own: Made, tmp_path):
    configs = own.rows("SELECT dataset, config FROM build_configs")
    events = tmp_path / "events.jsonl"
    result = proccorpus(
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


def test_lines_of_its_log_are_json_where_that_is_asked_for(own: Made, tmp_path):
    """Each with run, dataset, chunk and stage; what fails is an error of its stage."""
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

    refused = proccorpus(
        "build", "--dataset", "cups", cwd=tmp_path, workspace=tmp_path / "w", PROCCORPUS_LOG="json"
    )
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
