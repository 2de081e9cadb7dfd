"""Rewards as a user has them: of a video, of several cameras, of a data set."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from annotate.conventions.sidecars import check
from core.paths import Workspace
from eval.reward.open import ScorerConfig, ScorerOptions, open_checkpoint
from eval.reward.scorer import TOLERANCE
from eval.reward.stream import RewardError
from eval.reward.video import score_clip, scored_rows
from ingest.media.video import decode
from pipeline.episode_rewards import episode_clip, score_episodes
from pipeline.rewards import score_video
from tests.kits.cli_kit import Built, Result, assert_one_error_line, command
from tests.kits.lake_kit import put_rows
from tests.kits.laptop_kit import make_checkpoint as make_laptop
from tests.kits.reward_kit import make_checkpoint, write_video
from tests.kits.tiny_lerobot import FPS, LENGTHS, TASKS, video_path
from tests.kits.training_kit import KilledError
from training.folder import ModelError
from training.runs import named_model
from warehouse.lake import Lake, open_lake
from warehouse.lake.stored import usable_episodes

pytestmark = pytest.mark.slow

SUCCESS = {
    "of": "done", "slope": 1.0, "shift": 0.0, "threshold": 0.5, "balanced_accuracy": 0.9, "reached": 9, "unreached": 9,
    "release": "r", "split": "val",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "bars", success=SUCCESS)


@pytest.fixture(scope="module")
def video(source: Path) -> Path:
    return video_path(source, 0)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(own: Built, video: Path, out: Path, *options: object) -> Result:
    """A video of the first task."""
    words = ("reward", video, "--task", TASKS[0], "--out", out, "--format", "json", *options)
    result = command(*words, cwd=out.parent, workspace=own.workspace)
    assert result.code == 0, result.err
    return result


def exported(own: Built, kind: str, model: Path, out: Path) -> Result:
    """What a model says of the corpus."""
    words = ("export", kind, "--set", f"from_model={model}", "--out", out, "--format", "json")
    allowed = ("--allow-licence", "unknown")
    result = command(*words, *allowed, cwd=out.parent, workspace=own.workspace)
    assert result.code == 0, result.err
    return result


def numbers(rows: list[dict[str, Any]]) -> dict[int, float]:
    return {r["frame_index"]: r["progress"] for r in rows}


def test_a_videos_reward_is_the_same_from_everywhere(own, checkpoint, video, tmp_path):
    out = tmp_path / "rewards.jsonl"
    overlay = tmp_path / "overlay.mp4"
    options = ("--model", checkpoint, "--overlay", overlay, "--fps", 4)
    result = scored(own, video, out, *options)
    rows = read(out)
    assert [r["frame_index"] for r in rows] == [
        k for k in range(LENGTHS[0]) if k not in (3, 7, 13, 17)
    ]
    assert {tuple(r) for r in rows} == {
        (
            "frame_index",
            "timestamp_s",
            "progress",
            "done",
            "success",
            "source",
            "failure",
            "unsure",
            "latency_s",
        )
    }
    assert all(
        0 < r["progress"] < 1 and r["failure"] is None and r["source"] == "head" for r in rows
    )
    assert all(r["success"] == (r["done"] >= 0.5) for r in rows)
    assert [r["timestamp_s"] for r in rows] == pytest.approx([r["frame_index"] / FPS for r in rows])
    assert result.json["rows"] == len(rows)
    assert result.json["last_progress"] == rows[-1]["progress"]

    with av.open(str(overlay)) as container:
        (stream,) = container.streams
        context: Any = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) == LENGTHS[0]
    data = overlay.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")

    scorer = open_checkpoint(checkpoint)
    stream = scorer.stream(TASKS[0], FPS, cameras=("main",), score_fps=4, num_frames=LENGTHS[0])
    moments = [stream.append({"main": f.rgb()}) for f in decode(video)]
    core = list(
        chain.from_iterable(scored_rows(scorer, [m]) for m in moments if m)
    )  # one at a time
    assert numbers(core) == {k: pytest.approx(v, abs=TOLERANCE) for k, v in numbers(rows).items()}

    folder = tmp_path / "rabc"
    exported(own, "rabc", checkpoint, folder)
    table = pq.read_table(folder / "sarm_progress.parquet")
    assert {f.name: str(f.type) for f in table.schema} == {
        "index": "int64", "episode_index": "int64", "frame_index": "int64", "progress_sparse": "float",
        "progress_dense": "float", "outcome_assumed": "bool",
    }  # fmt: skip
    assert table["index"].to_pylist() == list(range(sum(LENGTHS)))
    progress = table["progress_sparse"].to_numpy()
    assert np.array_equal(progress, table["progress_dense"].to_numpy())
    first = progress[: LENGTHS[0]]
    assert first[list(numbers(rows))] == pytest.approx(list(numbers(rows).values()), abs=TOLERANCE)
    assert first[3] == pytest.approx((first[2] + first[4]) / 2, abs=1e-6)
    assert np.isfinite(progress).all()
    facts = pq.read_metadata(folder / "sarm_progress.parquet").metadata
    assert facts[b"reward_model_path"].decode() == f"proccorpus:{checkpoint}"
    assert "the\nreward model" in (folder / "README.md").read_text()


def test_an_episode_is_scored_by_its_number_and_the_newest_model(own, checkpoint, tmp_path):
    command_words = ("reward", "--dataset", "tiny", "--episode")
    none_yet = command(*command_words, 0, cwd=tmp_path, workspace=own.workspace)
    assert (none_yet.code, "no model was trained in this workspace yet" in none_yet.err) == (
        2,
        True,
    ), none_yet.err
    # Two trained models, of which the second is newer
    lake = Lake(Workspace(own.workspace))
    for number, name in enumerate(("old", "new")):
        shutil.copytree(checkpoint, own.workspace / "models" / name)
        created_at = datetime(2026, 1, 1 + number, tzinfo=UTC)
        run = {"training_run": name, "recipe": f"recipe_{name}", "created_at": created_at}
        place = {
            "training_run": name,
            "step": 1,
            "path": f"models/{name}",
            "created_at": created_at,
        }
        put_rows(lake, training_runs=[run], checkpoints=[place])
    assert [named_model(lake, name) for name in ("latest", "recipe_old", "other")] == [
        "new",
        "old",
        "other",
    ]
    lake.con.close()
    overlay = tmp_path / "second.mp4"
    result = command(
        *command_words, 1, "--fps", FPS, "--overlay", overlay, cwd=tmp_path, workspace=own.workspace
    )
    assert result.code == 0, result.err
    # Its own frames alone, of a file that may hold several episodes, and its own task
    rows = read(tmp_path / "tiny-1.rewards.jsonl")
    assert [row["frame_index"] for row in rows] == list(range(LENGTHS[1]))
    assert overlay.stat().st_size > 1000
    clip, task = episode_clip(Workspace(own.workspace), "tiny", 1)
    scorer = open_checkpoint(own.workspace / "models" / "new")
    clip_rows = list(score_clip(scorer, clip, task, score_fps=FPS))
    assert numbers(clip_rows) == pytest.approx(numbers(rows), abs=TOLERANCE)
    for arguments, message in (
        (("tin", "--episode", 0), "there is no dataset 'tin'; built: tiny; did you mean tiny?"),
        (("tiny", "--episode", 99), "tiny has no episode 99"),
        (("tiny",), "give either a video, or --dataset NAME with --episode N"),
        (("tiny", "--episode", 0, "--camera", "up"), "has no camera 'up'; it has"),
    ):
        wrong = command("reward", "--dataset", *arguments, cwd=tmp_path, workspace=own.workspace)
        assert wrong.code == 2
        assert message in assert_one_error_line(wrong)


def test_a_laptop_models_weights_are_what_it_says_of_each_video(own, video, tmp_path):
    model = make_laptop(tmp_path / "bars")
    score = score_video(ScorerConfig(model), {"main": video}, TASKS[0], tmp_path / "r.jsonl")
    rows = numbers(read(tmp_path / "r.jsonl"))
    assert score.failures == 0
    folder = tmp_path / "rabc"
    exported(own, "rabc", model, folder)
    progress = pq.read_table(folder / "sarm_progress.parquet")["progress_sparse"].to_numpy()
    assert len(progress) == sum(LENGTHS)
    assert np.isfinite(progress).all()
    assert progress[: LENGTHS[0]][list(rows)] == pytest.approx(list(rows.values()), abs=TOLERANCE)
    assert np.ptp(progress) > 1e-3

    # The same rewards as signals: rows of the scored frames alone, and nothing is scored again
    signals = tmp_path / "signals.parquet"
    notes = exported(own, "frame-signals", model, signals).err
    assert "0 of 5 episodes scored now" in notes
    table = pq.read_table(signals)
    assert set(check(table)) == {"progress", "success"}
    first = table.filter(pc.field("episode_index") == 0)
    assert first["frame_index"].to_pylist() == list(rows)
    assert first["progress"].to_pylist() == pytest.approx(list(rows.values()), abs=TOLERANCE)


def test_a_data_set_that_was_stopped_goes_on_where_it_was(own, checkpoint):
    lake = open_lake(Workspace(own.workspace))
    episodes = usable_episodes(lake.con)
    assert [e.num_frames for e in episodes] == list(LENGTHS)
    scorer = open_checkpoint(checkpoint)
    calls = count()
    score = scorer.score
    scored: list[int] = []

    def until(stop: int) -> Any:
        def run(moments: Any) -> Any:
            if next(calls) == stop:
                raise KilledError
            scored.extend(m.stream.num_frames for m in moments)
            return score(moments)

        return run

    scorer.score = until(2)  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        score_episodes(lake, scorer, "bars", episodes)
    assert set(scored) == set(LENGTHS[:2])
    half = Lake(Workspace(own.workspace), read_only=True).rows(
        "SELECT * FROM eval_predictions ORDER BY ALL"
    )
    assert {r[1:3] for r in half} == {("tiny", 0), ("tiny", 1)}
    scorer.score = until(99)  # type: ignore[method-assign]
    result = score_episodes(lake, scorer, "bars", episodes)
    assert (result.episodes, result.scored_now, result.failures) == (5, 3, 0)
    whole = lake.rows("SELECT * FROM eval_predictions ORDER BY ALL")
    assert [r for r in whole if r[2] < 2] == half
    assert score_episodes(lake, scorer, "bars", episodes).scored_now == 0
    # what was scored as another video, or by another camera, is scored again, and what was it is gone
    for change in ("content_hash = 'old'", "camera = 'another'"):
        lake.con.execute(f"UPDATE eval_predictions SET {change} WHERE episode_index = 4")
        assert score_episodes(lake, scorer, "bars", episodes).scored_now == 1
        assert lake.rows("SELECT * FROM eval_predictions ORDER BY ALL") == whole
    # The same for another instruction; rewards that name none count
    lake.con.execute("UPDATE eval_predictions SET instruction = NULL WHERE episode_index = 4")
    retold = [replace(e, task="Do something else") for e in episodes[:1]]
    assert score_episodes(lake, scorer, "bars", [*retold, *episodes[1:]]).scored_now == 1
    assert score_episodes(lake, scorer, "bars", episodes).scored_now == 1


@pytest.fixture
def broken(tmp_path, video: Path) -> dict[str, Path]:
    """A video that is none, one without frames, one whose end is missing."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    with av.open(str(folder / "zero.mp4"), "w", options={"movflags": "empty_moov"}) as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
        container.mux(stream.encode(None))
    rng = np.random.default_rng(0)
    whole = write_video(
        folder / "whole.mp4", list(rng.integers(0, 255, (40, 48, 64, 3), np.uint8)), FPS
    )
    data = whole.read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    return {p.stem: p for p in folder.iterdir()}


def clock(videos: dict[str, Path], out: Path, **score_options: Any) -> Any:
    return score_video(
        ScorerConfig(options=ScorerOptions(baseline="clock")), videos, "go", out, **score_options
    )


def test_what_is_no_whole_video_is_refused_in_a_line_and_leaves_nothing(broken, video, tmp_path):
    out = tmp_path / "out" / "rewards.jsonl"
    messages = {}
    for name, path in (broken | {"gone": tmp_path / "gone.mp4"}).items():
        if name == "whole":
            continue
        with pytest.raises(RewardError) as e:
            clock({"camera": path}, out, overlay=tmp_path / "out" / "o.mp4")
        messages[name] = str(e.value)
    assert "text.mp4 is not a video that FFmpeg can open" in messages["text"]
    assert messages["zero"] == "zero.mp4: there is no frame to score"
    assert "cut.mp4 is cut off or damaged" in messages["cut"]
    assert "of 40 that the header promises" in messages["cut"]
    assert "there is no video" in messages["gone"]
    with pytest.raises(RewardError, match="of which 11 cannot be scored"):
        clock({"camera": video}, out, score_fps=11)
    with pytest.raises(RewardError, match=r"different lengths in frames: camera 24, other 40"):
        clock({"camera": video, "other": broken["whole"]}, out)
    with pytest.raises(RewardError, match="cannot both be"):
        clock({"camera": video}, out, overlay=out)
    with pytest.raises(RewardError, match=r"text\.mp4/rewards\.jsonl cannot be written: "):
        clock({"camera": video}, broken["text"] / "rewards.jsonl")
    with pytest.raises(RewardError, match="is the video itself"):
        clock({"camera": video}, video)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


@pytest.mark.parametrize("file", ["model.safetensors", "progress_head.safetensors"])
def test_a_damaged_checkpoint_is_an_error_of_one_line(checkpoint, video, tmp_path, file):
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    os.truncate(damaged / file, 100)
    with pytest.raises(ModelError, match=f"{damaged} cannot be loaded") as e:
        score_video(ScorerConfig(damaged), {"camera": video}, "go", tmp_path / "rewards.jsonl")
    assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["damaged"]


def test_the_head_of_a_cut_video_is_scored_when_asked_and_says_so(broken, tmp_path):
    out = tmp_path / "rewards.jsonl"
    result = clock({"camera": broken["cut"]}, out, partial=True, overlay=tmp_path / "o.mp4")
    *scored, end = read(out)
    assert len(scored) > 3
    assert all(r["progress"] is not None and r["progress"] < 1 for r in scored)
    assert end["progress"] is None
    assert end["failure"] == f"the video is cut off here: {end['frame_index']} of 40 frames decode"
    assert result.failures == 1
    assert any("cut off here" in note for note in result.notes)
