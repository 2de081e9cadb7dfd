"""`--without CHECK` of exports and releases, as the remedies of checks print it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ingest.reasons import REASONS
from tests.kits.cli_kit import Result, called, command
from tests.kits.faulty import FAULTS
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.releases.contents import contents
from warehouse.releases.release import create_release
from warehouse.shards.shard import read_samples

Run = Callable[..., Result]
LICENCE = ("--allow-licence", "unknown")


@pytest.fixture
def run(faulty: Made, capsys) -> Run:
    return lambda *words: called(capsys, *words, "--workspace", faulty.space.root)


def test_the_remedy_works_as_it_is_printed(run, tmp_path):
    [command] = re.findall(r"`proccorpus (export [^`]+)`", REASONS["camera_frozen"].remedy)
    words = ("--dataset", "tiny", *LICENCE, "--format", "json")
    result = run(*command.split(), "--out", tmp_path / "out", *words)
    assert (result.code, result.json["episodes"]) == (0, 4), result
    assert "left out: 1 runs with camera_frozen: tiny 2\n" in result.err
    assert json.loads((tmp_path / "out" / "meta" / "info.json").read_text())["total_episodes"] == 4


def test_checks_that_are_accepted_or_found_nothing_leave_nothing_out(run, tmp_path):
    run("say", "acceptance", "tiny", "camera_black", "--comment", "the lamp was off")
    words = ("--without", "camera_black", "--without", "camera_moved", *LICENCE, "--format", "json")
    result = run("export", "rabc", "--out", tmp_path / "out", *words)
    assert result.json["episodes"] == 5
    assert "left out: 0 runs with camera_black\nleft out: 0 runs with camera_moved\n" in result.err
    refused = run(
        "export", "rabc", "--out", tmp_path / "other", "--without", "camera_blak", *LICENCE
    )
    assert (refused.code, "did you mean camera_black" in refused.err) == (2, True)


@pytest.fixture(scope="module")
def made_less(made_faulty: Made, tmp_path_factory) -> tuple[Made, Result, Result]:
    """The corpus with the releases `all` and `less`, and what their commands said."""
    folder = tmp_path_factory.mktemp("less")
    own = made_faulty.copy(folder)

    def release(*words: str) -> Result:
        options = (*LICENCE, "--format", "json")
        line = ("release", "create", *words, *options)
        return command(*line, cwd=folder, workspace=own.space.root)

    return own, release("all"), release("less", "--without", "camera_frozen")


@pytest.fixture
def partial(made_less: tuple[Made, Result, Result], tmp_path) -> Made:
    """A copy of it for a test to change."""
    return made_less[0].copy(tmp_path)


@pytest.fixture
def run_less(partial: Made, capsys) -> Run:
    return lambda *words: called(capsys, *words, "--workspace", partial.space.root)


def created(run: Run, name: str, *words: object) -> Result:
    result = run("release", "create", name, *words, *LICENCE, "--format", "json")
    assert result.code == 0, result
    return result


EPISODES_OF_SAMPLES = (
    "SELECT DISTINCT s.episode_index AS episode FROM samples s "
    "JOIN sample_location l USING (sample_id) ORDER BY 1"
)


def test_a_release_says_what_checks_found_and_leaves_these_runs_out(
    made_faulty, made_less, partial, run_less
):
    _, full, smaller = made_less
    run = run_less
    assert full.json["faults"] == {"tiny": {"camera_black": 1, "camera_frozen": 1}}
    sentence = "- tiny: checks found faults that nobody accepted: camera_black in 1 run, camera_frozen in 1 run."
    assert sentence in Path(full.json["card"]).read_text().splitlines()

    assert smaller.json["faults"] == {"tiny": {"camera_black": 1}}
    [exclusion] = smaller.json["left_out"]
    assert exclusion["episodes"] == [2]
    assert "checks found camera_frozen in them (episodes 2)" in exclusion["why"]

    [command] = re.findall(r"proccorpus (show [^)]+)", exclusion["remedy"])
    assert "camera_frozen" in run(*command.split()).out

    # The corpus keeps the run and its shards; the release holds the others, that of its own shard too
    corpus_rows = made_faulty.rows("FROM shards ORDER BY shard")
    assert partial.rows("FROM shards ORDER BY shard") == corpus_rows
    everybody = [episode for (episode,) in partial.rows(EPISODES_OF_SAMPLES)]
    in_release = run("sql", EPISODES_OF_SAMPLES, "--release", "less", "--format", "json")
    held_episodes = [row["episode"] for row in in_release.json]
    assert held_episodes == [episode for episode in everybody if episode != 2]
    assert run("release", "verify", "less").code == 0
    assert run("doctor", "--format", "json").code == 0
    build = run("build", "--dataset", "tiny", "--workers", "1", "--format", "json")
    assert build.code in (0, 3), build
    assert partial.rows("FROM shards ORDER BY shard") == corpus_rows

    run("say", "acceptance", "tiny", "camera_black", "--comment", "the lamp was off")
    quiet = created(run, "quiet", "--without", "camera_frozen")
    assert (quiet.json["faults"], "faults:" in quiet.err) == ({}, False)


def test_the_shards_of_such_a_release_show_nothing_of_the_run(run_less, partial):
    tars = {}
    for name in ("all", "less"):
        sql = f"SELECT split, shard, store FROM release_shards WHERE name = '{name}' ORDER BY shard"
        tars[name] = [partial.space.shard(*shard) for shard in partial.rows(sql)]
    samples = {name: list(read_samples(paths)) for name, paths in tars.items()}
    # What is there is what was there, in samples and pictures, but for what shows run 2
    expected = {
        sample.row["sample_id"]: sample.pictures
        for sample in samples["all"]
        if sample.row["episode_index"] != 2
        and not any(name.startswith("e000002.") for name in sample.row["pictures"])
    }
    assert {s.row["sample_id"]: s.pictures for s in samples["less"]} == expected
    assert len(expected) < len(samples["all"])
    # The same again is the same release
    repeated = created(run_less, "again", "--without", "camera_frozen")
    [(content,)] = partial.rows("SELECT config_hash FROM releases WHERE name = 'less'")
    assert repeated.json["content"] == content


def test_shards_of_a_release_that_breaks_off_are_made_anew(run, faulty, monkeypatch):
    corpus_rows = faulty.rows("FROM shards ORDER BY shard")
    exchange = Lake._exchange_shards
    calls = []

    def breaking(lake: Lake, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        exchange(lake, *arguments)

    monkeypatch.setattr(Lake, "_exchange_shards", breaking)
    with opened(faulty.space) as lake:
        sound_contents = contents(lake, None, None, ["camera_frozen"])
        with pytest.raises(KeyboardInterrupt):
            create_release(lake, "less", release_contents=sound_contents)
    monkeypatch.undo()
    assert faulty.rows("FROM shards ORDER BY shard") != corpus_rows
    assert run("build", "--dataset", "tiny", "--workers", "1").code in (0, 3)
    assert faulty.rows("FROM shards ORDER BY shard") == corpus_rows


def test_weights_of_stretches_are_0_and_the_rest_of_their_runs_stays(run, faulty, tmp_path):
    words = ("export", "weights", "--set", "kind=segments", "--dataset", "tiny", *LICENCE)
    weights = {}
    for name, options in {
        "all": (),
        "less": ("--set", "without_stretches=camera_frozen,camera_black"),
    }.items():
        result = run(*words, *options, "--out", tmp_path / name)
        assert result.code == 0, result
        weights[name] = pq.read_table(tmp_path / name / "weights.parquet").to_pandas()
    assert "in stretches with camera_frozen or camera_black: they weigh 0" in result.err
    stretches = faulty.rows("SELECT episode_index, start_frame, end_frame FROM checks ORDER BY 1")
    assert [episode for episode, _, _ in stretches] == sorted(FAULTS.values())
    expected = weights["all"].copy()
    for episode, start_frame, end_frame in stretches:
        is_within = expected["frame_index"].between(start_frame, end_frame - 1)
        is_within &= expected["episode_index"] == episode
        assert expected.loc[is_within, "weight"].any()
        expected.loc[is_within, "weight"] = 0.0
    assert weights["less"].equals(expected)
    # LeRobot's dataset has the same in its column
    in_dataset = run(*words, *options, "--in-dataset", "--out", tmp_path / "dataset")
    assert in_dataset.code == 0, in_dataset
    column = pq.read_table(tmp_path / "dataset" / "data")["sample_weight"].to_numpy()
    assert (column == expected["weight"].to_numpy()).all()
    # What is accepted weighs as before
    run("say", "acceptance", "tiny", "camera_black", "--comment", "the lamp was off")
    run("say", "acceptance", "tiny", "camera_frozen", "--comment", "it rests")
    accepted = run(*words, *options, "--out", tmp_path / "accepted")
    assert accepted.code == 0, accepted
    assert (
        pq.read_table(tmp_path / "accepted" / "weights.parquet").to_pandas().equals(weights["all"])
    )
