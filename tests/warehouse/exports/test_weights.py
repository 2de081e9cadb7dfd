"""`export weights`, read by LeRobot's own classes by the printed flags.

Also: weights by gains, segments and outcomes.
"""

import ast
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from core.paths import ROOT, Workspace
from pipeline.config import source_build
from tests.kits.cli_kit import called
from tests.kits.made_corpus import built
from warehouse.exports import EXPORT_KINDS, weights
from warehouse.exports.export import MANIFEST, Exported
from warehouse.exports.options import Selection
from warehouse.exports.rabc import gains_of
from warehouse.exports.verify_lerobot import verify
from warehouse.exports.weights import (
    CAP,
    DEVIATION,
    MEAN,
    WeighedRun,
    as_progress,
    balancing_gains,
    frame_weights,
)
from warehouse.lake import Lake

CHUNK = 16
# One task of the sample: six experts' runs, and runs that stop, stall or miss
RUNS = (*range(30, 36), *range(61, 66))
ANY = Selection(allow=("unknown",))
SUCCEEDED = Selection(allow=("unknown",), where="success")


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Lake:
    """A lake of some runs of the shipped sample; not for changing."""
    space = Workspace(tmp_path_factory.mktemp("short"))
    built(source_build(ROOT / "samples/sim_short", "sim_short", None, RUNS), space)
    return Lake(space, read_only=True)


def exported(lake: Lake, out: Path, selection: Selection = ANY, **options: Any) -> Exported:
    return EXPORT_KINDS["weights"].export(
        lake, selection, out, EXPORT_KINDS["weights"].options(chunk_size=CHUNK, **options)
    )


def by_lerobot(lines: Sequence[str], index: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """What LeRobot's trainer would weigh frames by, told by the flags in some lines, as one batch: mean 1."""
    import draccus
    import torch
    from lerobot.utils.sample_weighting import SampleWeightingConfig, make_sample_weighter

    prefix = "--sample_weighting."
    words = shlex.split(
        "\n".join(line.rstrip("\\") for line in lines if line.strip().startswith(prefix))
    )
    flags = [f"--{word.removeprefix(prefix)}" for word in words if word.startswith(prefix)]
    policy: Any = SimpleNamespace(config=SimpleNamespace(chunk_size=chunk))
    config = draccus.parse(SampleWeightingConfig, args=flags)
    weighter = make_sample_weighter(config, policy, torch.device("cpu"))
    assert weighter is not None
    return weighter.compute_batch_weights({"index": index})[0].numpy().astype(np.float64)


def training_config(flags: Sequence[str]) -> Any:
    """What `lerobot-train` reads of its command line."""
    import draccus
    import lerobot.policies.smolvla.configuration_smolvla  # noqa: F401 - by which LeRobot knows the type
    from lerobot.configs.train import TrainPipelineConfig

    return draccus.parse(TrainPipelineConfig, args=list(flags))


def frames_of(folder: Path, sample: str = "sim_short") -> Any:
    """The weights of an export with what the simulator knows of each frame and its run: a data frame."""
    truth = ROOT / "samples/truth" / sample
    runs = pd.read_parquet(truth / "episodes.parquet")[["episode_index", "policy", "success"]]
    idle = pd.read_parquet(truth / "frames.parquet")[["episode_index", "frame_index", "idle"]]
    table = pq.read_table(folder / weights.FILE).to_pandas()
    return (
        table.merge(runs, on="episode_index")
        .merge(idle, on=["episode_index", "frame_index"])
        .sort_values("index")
    )


def check_frames(
    export_result: Exported, sample: str = "sim_short", selected: Sequence[int] | None = None
) -> None:
    """What LeRobot reads is what was written; dropped and failed runs weigh next to nothing, and stalls little."""
    frames = frames_of(Path(export_result.out), sample)
    read = by_lerobot(export_result.use, frames["index"].to_numpy())
    assert np.isfinite(read).all()
    assert np.corrcoef(read, frames["weight"])[0, 1] >= 0.9999
    of_experts = read[(frames["policy"] == "expert") & frames["success"]].mean()
    assert read[~frames["success"]].mean() <= 0.2 * of_experts
    is_stall = frames["idle"] & frames["success"] & (frames["policy"] != "expert")
    if is_stall.any():
        assert read[is_stall].mean() <= 0.5 * of_experts
    if selected is not None:
        dropped = ~frames["episode_index"].isin(selected)
        assert dropped.any()
        assert read[dropped].max() <= 0.01


@pytest.mark.parametrize("selection", [ANY, SUCCEEDED])
def test_lerobot_reads_the_weights_by_the_flags_that_are_printed(short, tmp_path, selection):
    export_result = exported(short, tmp_path / "out", selection)
    if selection is ANY:
        kept_episodes = None
    else:
        kept_episodes = short.column("SELECT episode_index FROM episodes WHERE success")
    check_frames(export_result, selected=kept_episodes)
    table = pq.read_table(tmp_path / "out" / weights.FILE)
    assert table.schema.names == ["index", "episode_index", "frame_index", "weight"]
    assert not np.isnan(table["weight"].to_numpy()).any()
    facts = json.loads((tmp_path / "out" / MANIFEST).read_text())["weights"]
    assert facts["lerobot"] == "0.6.1"
    assert facts["correlation"] >= 0.9999
    second_export = exported(short, tmp_path / "again", selection)
    for name in (weights.FILE, weights.LEROBOT_FILE, "README.md", MANIFEST):
        assert (
            Path(export_result.out, name).read_bytes() == Path(second_export.out, name).read_bytes()
        )


@pytest.mark.parametrize("kind", ["awr", "segments", "top-half", "rabc"])
def test_every_kind_is_read_as_it_is_written(short, tmp_path, kind):
    export_result = exported(short, tmp_path / "out", weighting=kind)
    table = pq.read_table(tmp_path / "out" / weights.FILE)
    read = by_lerobot(export_result.use, table["index"].to_numpy())
    assert np.corrcoef(read, table["weight"])[0, 1] >= 0.9999


@pytest.mark.long
@pytest.mark.parametrize("sample", ["sim_short", "sim_long"])
def test_the_samples_failed_runs_and_stalls_weigh_little(tmp_path, sample):
    space = Workspace(tmp_path / "workspace")
    built(source_build(ROOT / "samples" / sample, sample, None, None), space)
    check_frames(exported(Lake(space, read_only=True), tmp_path / "out"), sample)


def test_a_dataset_has_the_column_that_lerobot_gives_with_each_frame(
    short, tmp_path, lerobot_in_thread
):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    export_result = exported(short, tmp_path / "out", SUCCEEDED, in_dataset=True, plain=True)
    expected_weights = pq.read_table(tmp_path / "out" / weights.FILE)["weight"].to_numpy()
    opened: Any = LeRobotDataset("local/weighted", root=tmp_path / "out", video_backend="pyav")
    assert len(opened) == len(expected_weights)
    assert [opened[k][weights.WEIGHT].item() for k in (0, 20, 100)] == expected_weights[
        [0, 20, 100]
    ].tolist()
    assert (
        np.corrcoef(
            by_lerobot(export_result.use, np.arange(len(expected_weights))), expected_weights
        )[0, 1]
        >= 0.9999
    )
    assert f"--dataset.root={tmp_path / 'out'}" in "\n".join(export_result.use)
    assert not verify(
        short, SUCCEEDED, tmp_path / "out", EXPORT_KINDS["lerobot"].options(plain=True)
    ).problems

    # Weighed again from such a dataset there is one column, of the new weights
    space = Workspace(tmp_path / "workspace")
    built(source_build(tmp_path / "out", "again", None, (0, 1)), space)
    exported(Lake(space, read_only=True), tmp_path / "anew", in_dataset=True, plain=True)
    [rows] = (tmp_path / "anew/data").rglob("*.parquet")
    assert pq.read_schema(rows).names.count(weights.WEIGHT) == 1


def test_a_file_that_lerobot_reads_otherwise_is_no_export(short, tmp_path, monkeypatch):
    monkeypatch.setattr(
        weights, "weights_by_lerobot", lambda path, index, chunk_size: np.ones(len(index))
    )
    with pytest.raises(
        UserError,
        match=r"reads other weights from lerobot_weights.parquet .* install LeRobot 0\.6\.1",
    ):
        exported(short, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()

    def missing(*_: object) -> np.ndarray:
        raise ModuleNotFoundError(name="lerobot")

    monkeypatch.setattr(weights, "weights_by_lerobot", missing)
    assert any(
        "LeRobot is not installed here" in note for note in exported(short, tmp_path / "out").notes
    )


def test_what_cannot_be_weighed_is_refused_with_what_to_do(short, tmp_path):
    with pytest.raises(
        UserError,
        match=r"no frame of the .* episodes selected would weigh more than 0 by --kind comb",
    ):
        exported(short, tmp_path / "out", Selection(allow=("unknown",), where="NOT success"))
    with pytest.raises(UserError, match="--plain: only a dataset is shaped so; add --in-dataset"):
        exported(short, tmp_path / "out", plain=True)
    unsure = Selection(allow=("unknown",), label_run="x", min_name_confidence=0.5)
    with pytest.raises(UserError, match="--label-run takes labels as they are, however sure"):
        exported(short, tmp_path / "out", unsure)


def test_runs_without_an_outcome_or_a_label_are_told(made, tmp_path):
    lake = Lake(made.space, read_only=True)
    chosen = Selection(allow=("unknown",), min_confidence=1.0)
    notes = exported(lake, tmp_path / "out", chosen).notes
    assert "5 episodes do not say how they ended: they weigh as if they had not failed" in notes
    assert (
        "5 episodes have no label: their frames weigh as if they gained as the mean does" in notes
    )
    one = Selection(datasets=("tiny",), episodes=(0, 98, 99), allow=("unknown",))
    [missing] = exported(lake, tmp_path / "one", one).left_out
    assert missing == "2 episodes that are not there, not usable or of another split (98, 99)"


def test_labels_of_some_runs_alone_are_counted(own, tmp_path):
    lake = Lake(own.space)
    lake.con.execute("DELETE FROM active_runs WHERE episode_index <> 3")
    chosen = Selection(allow=("unknown",), min_name_confidence=0)
    signals = EXPORT_KINDS["frame-signals"].export(lake, chosen, tmp_path / "s.parquet")
    written = pq.read_table(tmp_path / "s.parquet")["episode_index"].to_pylist()
    assert (signals.episodes, set(written)) == (1, {3})
    assert "4 episodes without a label are left out" in signals.notes
    notes = EXPORT_KINDS["rabc"].export(lake, chosen, tmp_path / "rabc").notes
    assert any(note.startswith("4 episodes have no label: their frames are NaN") for note in notes)


def test_rabc_gives_dropped_runs_no_weight_and_says_when_it_tells_nothing_apart(short, tmp_path):
    options = EXPORT_KINDS["rabc"].options(chunk_sizes=(CHUNK,))
    export_result = EXPORT_KINDS["rabc"].export(short, SUCCEEDED, tmp_path / "out", options)
    path = tmp_path / "out/sarm_progress.parquet"
    rows = pq.read_table(path).to_pandas()
    lines = (
        (tmp_path / "out/README.md")
        .read_text()
        .replace("/path/to", str(tmp_path / "out"))
        .splitlines()
    )
    dropped = rows["progress_sparse"].isna().to_numpy()
    index = rows["index"].to_numpy()
    assert by_lerobot(lines, index)[dropped].max() == 0
    # The trap: as it is without the flag that the README has
    trap = [line for line in lines if "fallback_weight" not in line]
    assert by_lerobot(trap, index)[dropped].min() > 1
    [note] = [note for note in export_result.notes if "not selected" in note]
    assert f"{dropped.sum()} frames that are not selected are NaN" in note
    [note] = [note for note in export_result.notes if "hardly tell" in note]
    share_alike = (
        by_lerobot(lines, index[~dropped]) >= by_lerobot(lines, index[~dropped]).max() - 1e-6
    ).mean()
    assert f"{share_alike:.0%} weigh 1 (chunks of 16 frames)" in note

    whole = EXPORT_KINDS["rabc"].export(short, ANY, tmp_path / "whole", options)
    assert "fallback_weight" not in (tmp_path / "whole/README.md").read_text()
    assert not any("not selected" in note for note in whole.notes)
    assert any("those of failed runs weigh" in note for note in whole.notes)


def test_the_policies_named_are_those_of_lerobot_that_take_weights():
    import lerobot

    takes = set()
    for path in (Path(lerobot.__file__).parent / "policies").glob("*/modeling_*.py"):
        classes = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
        ]
        for of_policy in classes:
            if "PreTrainedPolicy" not in map(ast.unparse, of_policy.bases):
                continue
            functions = [node for node in of_policy.body if isinstance(node, ast.FunctionDef)]
            for function in functions:
                parameters = {argument.arg for argument in function.args.args}
                if function.name == "forward" and "reduction" in parameters:
                    takes.add(path.parent.name)
    assert takes == set(weights.TAKE_WEIGHTS)


def test_the_command_prints_the_lines_of_the_trainer(short, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--allow-licence", "unknown", "--workspace", short.workspace.root)
    result = called(
        capsys,
        "export",
        "weights",
        "--set",
        "kind=awr",
        "--set",
        "chunk_size=16",
        "--out",
        out,
        *words,
    )
    assert result.code == 0
    assert "--policy.type=smolvla --policy.chunk_size=16" in result.out
    command = result.out[result.out.index("lerobot-train") : result.out.index("Its other policies")]
    config = training_config(
        ["--dataset.repo_id=local/any", *shlex.split(command.replace("\\\n", " "))[2:]]
    )
    assert (config.policy.chunk_size, config.sample_weighting.type) == (16, "rabc")
    assert f"--sample_weighting.progress_path={out}/lerobot_weights.parquet" in result.out
    assert "act and diffusion, take none" in result.out
    json_words = ("--set", "kind=awr", "--set", "chunk_size=16", "--format", "json")
    json_result = called(capsys, "export", "weights", "--out", out, *json_words, *words)
    assert json_result.json["use"] == [
        line for line in result.out.splitlines() if line in json_result.json["use"]
    ]


N = 40


def run_of(
    progress: np.ndarray | None = None,
    task: str = "open",
    *,
    idle: slice = slice(0),
    failed: bool = False,
):
    gains = np.full(N, np.nan) if progress is None else gains_of(progress, 5)
    is_useful = np.ones(N, bool)
    is_useful[idle] = False
    return WeighedRun(task, gains, is_useful, failed)


RISE = np.linspace(0, 1, N)
STALLS = np.interp(np.arange(N), [0, 10, 30, N - 1], [0, 0.5, 0.5, 1])


def test_what_gains_weighs_more_and_what_fails_or_stands_still_nothing():
    runs = [run_of(RISE), run_of(STALLS, idle=slice(10, 30)), run_of(RISE, failed=True)]
    awr = frame_weights(runs, "awr")
    combined = frame_weights(runs, "combined")
    assert awr[1][0] > awr[0][0] > awr[1][15] > 0  # the stalled run is faster before it stalls
    np.testing.assert_array_equal(awr[0], awr[2])
    np.testing.assert_array_equal(combined[0], awr[0])
    assert not combined[1][10:30].any()
    assert not combined[2].any()
    np.testing.assert_array_equal(frame_weights(runs, "segments")[1][:-1], runs[1].is_useful[:-1])
    top = np.concatenate(frame_weights(runs, "top-half"))
    assert set(top) == {0.0, 1.0}
    # Nothing follows a run's last frame
    assert all(weights[-1] == 0 for weights in [*awr, *combined])


def test_gains_are_compared_within_a_task_and_without_a_label_count_as_its_mean():
    slow = run_of(RISE / 10, "slow")
    weights = frame_weights(
        [run_of(RISE), run_of(STALLS), slow, run_of(STALLS / 10, "slow"), run_of(None)], "awr"
    )
    np.testing.assert_allclose(weights[2], weights[0])
    assert set(weights[4][:-1]) == {1.0}
    assert max(map(np.max, weights)) <= CAP
    weights_by_mean = frame_weights(
        [WeighedRun(None, np.full(N, 0.1), np.ones(N, bool), False)], "awr"
    )
    assert set(weights_by_mean[0][:-1]) == {1.0}


def test_one_leap_is_capped():
    leap = np.where(np.arange(400) < 200, 0.0, 1.0)
    [weights] = frame_weights(
        [WeighedRun("t", gains_of(leap, 1), np.ones(400, bool), False)], "awr"
    )
    assert weights.max() == CAP


@pytest.mark.parametrize("chunk_size", [1, 3, 39, 100])
def test_gains_of_the_progress_are_the_weights(chunk_size):
    weights = np.append(np.random.default_rng(0).random(N - 1), 0.0)
    np.testing.assert_allclose(
        gains_of(as_progress(weights, chunk_size), chunk_size), weights, atol=1e-12
    )


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_a_made_up_run_brings_mean_and_deviation(share):
    weights = (np.arange(1000) < share * 1000) * np.linspace(0.2, 1, 1000)
    made_up = balancing_gains(len(weights), weights.sum(), (weights**2).sum())
    all_weights = np.concatenate([weights, made_up])
    assert (all_weights.mean(), all_weights.std()) == (
        pytest.approx(MEAN, abs=1e-9),
        pytest.approx(DEVIATION, abs=1e-9),
    )
    assert made_up[-1] == 0
    assert len(made_up) < 5 * len(weights)
