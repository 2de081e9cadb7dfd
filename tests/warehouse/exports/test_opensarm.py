"""opensarm's forms: what is written follows its own scripts' rules, and comes back as it was."""

import json
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.conventions.reward_data import ALL_LOST, PRIMITIVES, RolloutAnnotation, label_of
from annotate.imported_label import ImportedError
from annotate.progress import stated_progress
from core.domain.label import IDLE, STEP, Segment, StatedEnd
from core.names import unnamed_step
from ingest.media.video import decode
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source
from pipeline.config import with_annotator
from pipeline.imports import import_annotations
from tests.kits.lake_kit import history, say
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.corrections import from_opensarm
from warehouse.exports.options import Selection
from warehouse.lake import Lake, corrections
from warehouse.lake.corrections import CorrectionError

OPENSARM = EXPORT_KINDS["opensarm"]

ANY = Selection(allow=("unknown",))
SLOPES = {
    "progress_fast": 2.0,
    "progress_slow": 1.0,
    "adjust": 0.0,
    "mistake": -1.0,
    "catastrophic": 0.0,
}
STATED: dict[str, Any] = {
    "plan": ["Reach", "Place"],
    "segments": [
        {"name": "Reach", "start_frame": 0, "end_frame": 10, "pace": "fast"},
        {"name": "Slip", "start_frame": 10, "end_frame": 14, "kind": "idle", "pace": "mistake"},
        {"name": "Place", "start_frame": 14, "end_frame": 30, "completed": False, "pace": "slow"},
    ],
}


def curve_by_opensarm(label: dict[str, Any], timestamps: np.ndarray) -> np.ndarray:
    """The rules of label_data/rollout_label/scripts/generate_progress.py @6dd65047, for a label that begins at 0."""
    t = timestamps - timestamps[0]
    slope = np.zeros(len(t))
    for s in label["segments"]:
        slope[(t >= s["start"] - 1e-9) & (t < s["end"] - 1e-9)] = SLOPES[s["label"]]
    last = label["segments"][-1]
    slope[t >= last["start"] - 1e-9] = SLOPES[last["label"]]
    dt = np.diff(t, prepend=t[0])
    loss_frame = label["catastrophic_frame"]
    is_before_loss = np.ones(len(t), bool) if loss_frame is None else t < loss_frame - 1e-9
    total = (slope * dt)[is_before_loss].sum()
    curve = np.cumsum(label["final_progress"] / total * slope * dt)
    curve[~is_before_loss] = 0
    return np.clip(curve, 0, 1)


def stated(own_corpus: Made, **end: Any) -> Lake:
    """The corpus with a correction of episode 2 that states how it went."""
    lake = Lake(own_corpus.space)
    say(lake, **STATED | end)
    own_corpus.rebuild(with_annotator(own_corpus.build, "motion"))
    return lake


@pytest.mark.parametrize(
    "end", [{"final_progress": 0.6}, {"final_progress": 0.5, "catastrophic_frame": 20}]
)
def test_an_export_is_what_opensarm_reads_and_comes_back(
    own: Made, tmp_path: Path, end: dict[str, Any]
):
    lake = stated(own, **end)
    out = tmp_path / "out"
    exported = OPENSARM.export(Lake(own.space, read_only=True), ANY, out)
    assert (exported.episodes, exported.frames) == (len(LENGTHS), sum(LENGTHS))

    # Rollouts: arrays as long as the video, whose reward is the difference of its progress
    rollouts = sorted((out / "rollouts").iterdir())
    assert len(rollouts) == len(LENGTHS)
    for rollout, length in zip(rollouts, LENGTHS, strict=True):
        timestamp, progress, reward = (
            np.load(rollout / f"{name}.npy") for name in ("timestamp", "progress", "reward")
        )
        assert len(timestamp) == len(progress) == len(reward) == length
        assert sum(1 for _ in decode(rollout / "top_camera-images-rgb.mp4")) == length
        np.testing.assert_array_equal(np.diff(progress, prepend=0.0), reward)

    # Rows: reward is progress, act_pri a primitive
    info = json.loads((out / "lerobot/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (len(LENGTHS), sum(LENGTHS))
    rows = [pq.read_table(p) for p in sorted((out / "lerobot/data/chunk-000").iterdir())]
    assert {"state", "reward", "act_pri", "timestamp", "task_index"} <= set(rows[0].column_names)
    assert "5 episodes have no column actions: their source brings none" in exported.notes
    assert str(rows[0].schema.field("reward").type) == "float"
    values = lake.rows("SELECT progress FROM active_progress ORDER BY episode_index, frame_index")
    assert list(chain.from_iterable(t["reward"].to_pylist() for t in rows)) == [
        v for (v,) in values
    ]
    assert {PRIMITIVES[k] for k in rows[2]["act_pri"].to_pylist()} == {"place", "dummy"}
    # A reader of LeRobot v2 opens it
    listing = list_episodes(Source(DatasetConfig(name="back", source=str(out / "lerobot"))))
    facts = lake.rows("SELECT task, num_frames FROM episodes ORDER BY episode_index")
    assert [(r.task, r.num_rows) for r in listing.records] == facts
    assert {r.cameras[0] for r in listing.records} == {"top_camera-images-rgb"}
    assert [f for f in listing.findings if f.severity == "unusable"] == []
    for video in (out / "lerobot/videos").rglob("*.mp4"):
        assert video.name.removesuffix(".mp4") in {f"episode_{k:06d}" for k in range(len(LENGTHS))}

    # What a person said, by opensarm's own formula, is the progress of the rollout
    [line] = [json.loads(text) for text in (out / "labels.jsonl").read_text().splitlines()]
    assert (line["user"], line["episode_index"], Path(line["video_path"]).parent) == (
        "ada",
        2,
        Path("rollouts/episode_000002"),
    )
    np.testing.assert_allclose(
        curve_by_opensarm(line["label"], np.load(rollouts[2] / "timestamp.npy")),
        np.load(rollouts[2] / "progress.npy"),
        atol=1e-6,
    )

    # And back: progress of all, paces and end of the one
    imported = import_annotations(lake, out, "tiny", "opensarm")
    assert (imported.episodes, imported.refused) == (len(LENGTHS), ())
    of_run = f"label_run = '{imported.label_run}'"
    values = "SELECT episode_index, frame_index, progress FROM {} WHERE {} ORDER BY 1, 2"
    assert lake.rows(values.format("progress", of_run)) == lake.rows(
        values.format("active_progress", "true")
    )
    query = f"SELECT final_progress, catastrophic_frame FROM episode_labels WHERE {of_run} AND episode_index = 2"
    assert lake.rows(query) == [(end["final_progress"], end.get("catastrophic_frame"))]
    second_folder = tmp_path / "again"
    lake.con.close()
    OPENSARM.export(
        Lake(own.space, read_only=True),
        ANY.model_copy(update={"label_run": imported.label_run}),
        second_folder,
    )
    [exported_line] = [
        json.loads(text) for text in (second_folder / "labels.jsonl").read_text().splitlines()
    ]
    assert exported_line["label"] == line["label"]


def test_results_of_the_tool_count_as_what_people_say(own: Made, tmp_path: Path):
    lake = stated(own, final_progress=0.6)
    saved = history(lake, "tiny", 2)[0]
    out = tmp_path / "out"
    OPENSARM.export(Lake(own.space, read_only=True), ANY, out)
    [line] = [json.loads(text) for text in (out / "labels.jsonl").read_text().splitlines()]
    foreign = {k: v for k, v in line.items() if k != "proccorpus"} | {
        "episode_id": 3,
        "video_path": "other.mp4",
    }
    wrong = foreign | {"episode_id": 77, "video_path": "third.mp4"}
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (line, wrong)))
    read = from_opensarm(lake, path, "nobody", "tiny")
    [row] = read.rows
    assert (row["episode_index"], row["author"], row["final_progress"]) == (2, "ada", 0.6)
    assert row["created_at"] == saved["created_at"]
    assert [s.pace for s in corrections.segments_of(row)] == [
        s.pace for s in corrections.segments_of(saved)
    ]
    assert read.refused == ["episode 77: the corpus has no episode 77 of 'tiny'"]
    assert corrections.add_rows(lake, read.rows) == 1
    path.write_text(json.dumps(foreign))
    assert from_opensarm(lake, path, "nobody", None).refused == [
        "episode 3: the line does not say of which dataset it is: add --dataset NAME"
    ]
    path.write_text("nothing")
    with pytest.raises(CorrectionError, match="line 1 is no label"):
        from_opensarm(lake, path, "nobody", None)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from(["fast", "slow", "adjust", "mistake"])),
        min_size=1,
        max_size=6,
    ),
    percent=st.integers(0, 99),
    at=st.one_of(st.none(), st.integers(1, 40)),
    fps=st.sampled_from([5.0, 15.0, 29.97, 30.0]),
)
def test_a_label_comes_back_from_its_line(
    parts: list[tuple[int, str]], percent: int, at: int | None, fps: float
):
    segments = []
    frame = 0
    for length, pace in parts:
        # Neighbours of one pace are one segment to opensarm, too
        kind = STEP if pace in ("fast", "slow") else IDLE
        if kind == STEP:
            name = unnamed_step(0)
        else:
            name = {"adjust": "Adjust", "mistake": "Mistake"}[pace]
        step = {STEP: 0}.get(kind)
        segments.append(
            Segment(name, frame, frame + length, kind, False, step, named=kind != STEP, pace=pace)
        )
        frame += length
    loss_frame = at if at is not None and at < frame else None
    end = StatedEnd(percent / 100, loss_frame)
    line = label_of(segments, stated_progress(segments, np.zeros(frame), end), end, fps)
    assert (line["final_progress"] == ALL_LOST) == (loss_frame is not None and percent == 0)
    line_segments = tuple(
        (s["start"], s["end"], s["label"]) for s in json.loads(json.dumps(line))["segments"]
    )
    lost_s = line["catastrophic_frame"]
    annotation = RolloutAnnotation(0, None, line_segments, line["final_progress"], lost_s)
    rise = sum(
        {"fast": 2, "slow": 1, "mistake": -1}.get(p, 0) * n for n, p in _until(parts, loss_frame)
    )
    if rise < 0:
        with pytest.raises(ImportedError, match="fall by more"):
            annotation.label(frame, fps, None)
        return
    label = annotation.label(frame, fps, None)
    assert label.end == end
    assert label_of(label.segments, np.zeros(frame), label.end, fps) == line
    if loss_frame is None:
        assert [(s.start_frame, s.end_frame, s.pace) for s in label.segments] == [
            (s.start_frame, s.end_frame, s.pace) for s in segments
        ]


def _until(parts: list[tuple[int, str]], loss_frame: int | None) -> list[tuple[int, str]]:
    """Parts less frame 0, to which nothing leads, and less what is lost."""
    paces = list(chain.from_iterable(repeat(pace, length) for length, pace in parts))[1:loss_frame]
    return [(1, pace) for pace in paces]
