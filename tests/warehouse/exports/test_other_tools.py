"""Robometer's rows: opened by Hugging Face's `datasets`.

Also: the visualizer's file by itself; LeRobot's sidecar of signals per frame; opensarm's forms; Robo-Dopamine's
forms.
"""

import json
import re
import shutil
from collections.abc import Callable
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.conventions.reward_data import (
    ALL_LOST,
    PRIMITIVES,
    GradedAnnotation,
    RolloutAnnotation,
    grade,
    label_of,
)
from annotate.conventions.sidecars import (
    Descriptor,
    annotations,
    check,
    metadata,
    read_signals,
    read_visualizer,
)
from annotate.imported_label import ImportedError
from annotate.progress import stated_progress
from core.domain.label import DONE, IDLE, STEP, Label, Segment, StatedEnd, is_stated
from core.names import unnamed_step
from ingest.media.video import decode
from ingest.registry import DatasetConfig
from ingest.source import format_of, list_episodes
from ingest.sources.files import Source
from pipeline.config import with_annotator
from pipeline.imports import import_annotations
from tests.kits.lake_kit import history, say
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, NAMED
from warehouse.exports import EXPORT_KINDS, sidecars
from warehouse.exports.corrections import from_opensarm
from warehouse.exports.options import Selection
from warehouse.exports.reward_data import score
from warehouse.lake import Lake, corrections
from warehouse.lake.corrections import CorrectionError

ROBOMETER = EXPORT_KINDS["robometer"]

ANY = Selection(allow=("unknown",))
# generate_hf_dataset.py @4dc7d0f7: BASE_FEATURES, with frames as a path
FEATURES = {
    "id": "string", "task": "string", "lang_vector": "float32", "data_source": "string", "frames": "string",
    "is_robot": "bool", "quality_label": "string", "partial_success": "float32",
}  # fmt: skip


def test_datasets_opens_it_and_the_grades_come_back(own, tmp_path):
    """Of episodes that finished, failed half way and near the end, or of which nobody knows."""
    lake = Lake(own.space)
    for episode, success, end in (
        (0, True, 1.0),
        (1, False, 0.25),
        (2, False, 0.75),
        (3, None, 1.0),
        (4, None, 0.4),
    ):
        lake.con.execute(
            "UPDATE episode_facts SET success = ? WHERE episode_index = ?", [success, episode]
        )
        lake.con.execute(
            "UPDATE progress SET progress = progress * ? WHERE episode_index = ?", [end, episode]
        )
    out = tmp_path / "rbm"
    exported = ROBOMETER.export(lake, ANY, out)
    assert exported.episodes == len(LENGTHS)

    opened: Any = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    rows = list(chain.from_iterable(opened.values()))
    features = next(iter(opened.values())).features
    assert {
        name: getattr(f, "dtype", None) or f.feature.dtype for name, f in features.items()
    } == FEATURES
    assert len(rows) == len({row["id"] for row in rows})
    ends = dict(
        lake.rows(
            "SELECT episode_index, arg_max(progress, frame_index) FROM active_progress GROUP BY 1"
        )
    )
    success_by_episode = dict(lake.rows("SELECT episode_index, success FROM episodes"))
    assert set(success_by_episode.values()) == {True, False, None}
    for row in rows:
        dataset, number, camera = row["id"].split("/")
        episode = int(number)
        quality, share = grade(success_by_episode[episode], ends[episode])
        assert (row["quality_label"], row["data_source"], row["is_robot"]) == (
            quality,
            dataset,
            True,
        )
        assert row["partial_success"] == pytest.approx(share)
        assert len(row["lang_vector"]) == 384
        assert np.linalg.norm(row["lang_vector"]) == pytest.approx(1, abs=1e-5)
        assert sum(1 for _ in decode(out / row["frames"])) == LENGTHS[episode], camera
    assert {row["quality_label"] for row in rows} == {"successful", "suboptimal", "failure"}

    imported = import_annotations(lake, out, "tiny", "robometer")
    assert (imported.episodes, imported.refused) == (len(LENGTHS), ())
    grades_read = dict(
        lake.rows(
            "SELECT episode_index, arg_max(progress, frame_index) FROM progress WHERE label_run = ? GROUP BY 1",
            [imported.label_run],
        )
    )
    for row in rows:
        assert grades_read[int(row["id"].split("/")[1])] == pytest.approx(
            row["partial_success"], abs=1e-6
        )


@settings(max_examples=60, deadline=None)
@given(
    success=st.sampled_from([True, False, None]),
    end=st.one_of(st.none(), st.floats(0, 1, width=32)),
)
def test_a_grade_comes_back_as_the_end_of_a_label(success: bool | None, end: float | None):
    quality, share = grade(success, end)
    annotation = GradedAnnotation(0, None, quality, share)
    if quality is None:
        with pytest.raises(ImportedError, match="neither"):
            annotation.label(10, 5.0, success)
        return
    label = annotation.label(10, 5.0, success)
    assert label.segments[0].completed == (quality == "successful")
    ordinary = np.linspace(0, 1 if label.segments[0].completed else 0.5, 10)
    if is_stated(label.segments, label.end):
        curve = stated_progress(label.segments, ordinary, label.end)
    else:
        curve = ordinary
    if share is not None:
        assert curve[-1] == pytest.approx(share, abs=1e-6)
        assert (
            grade(
                quality == "successful" or (None if quality is None else False), float(curve[-1])
            )[0]
            == quality
        )


OPENSARM = EXPORT_KINDS["opensarm"]

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
    """The rules of generate_progress.py @6dd65047, for a label that begins at 0."""
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


def ended(own_corpus: Made, **end: Any) -> Lake:
    """The corpus with a correction of episode 2 that states how it went."""
    lake = Lake(own_corpus.space)
    say(lake, **STATED | end)
    own_corpus.rebuild(with_annotator(own_corpus.build, "motion"))
    return lake


@pytest.mark.parametrize(
    "end", [{"final_progress": 0.6}, {"final_progress": 0.5, "catastrophic_frame": 20}]
)
def test_an_export_is_what_opensarm_reads_and_comes_back(undivided, tmp_path, end):
    lake = ended(undivided, **end)
    out = tmp_path / "out"
    exported = OPENSARM.export(Lake(undivided.space, read_only=True), ANY, out)
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

    # What a person said, by opensarm's undivided formula, is the progress of the rollout
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
        Lake(undivided.space, read_only=True),
        ANY.model_copy(update={"label_run": imported.label_run}),
        second_folder,
    )
    [exported_line] = [
        json.loads(text) for text in (second_folder / "labels.jsonl").read_text().splitlines()
    ]
    assert exported_line["label"] == line["label"]


def test_results_of_the_tool_count_as_what_people_say(undivided, tmp_path):
    lake = ended(undivided, final_progress=0.6)
    saved = history(lake, "tiny", 2)[0]
    out = tmp_path / "out"
    OPENSARM.export(Lake(undivided.space, read_only=True), ANY, out)
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


ROBO_DOPAMINE = EXPORT_KINDS["robo-dopamine"]


def published_score(first: int, earlier_step: int, later_step: int, last: int) -> float:
    """1_generate_data.py @bd69c78f, of indices: progress is the place among frames."""
    if earlier_step == later_step:
        return 0.0
    whole = last - earlier_step if earlier_step < later_step else earlier_step - first
    return 100.0 * (later_step - earlier_step) / whole


@settings(max_examples=80, deadline=None)
@given(
    st.integers(3, 60).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(1, n), st.integers(1, n))
    )
)
def test_scores_are_those_of_the_published_rule(drawn: tuple[int, int, int]):
    last, earlier_step, later_step = drawn
    shares = [(k - 1) / (last - 1) for k in (earlier_step, later_step)]
    assert score(*shares) == pytest.approx(published_score(1, earlier_step, later_step, last))
    assert -100 <= score(*shares) <= 100


def test_runs_come_back_and_pairs_show_what_they_say(own, tmp_path):
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET success = episode_index <> 4")
    out = tmp_path / "out"
    exported = ROBO_DOPAMINE.export(lake, ANY, out, ROBO_DOPAMINE.options(per_run=12))
    assert exported.episodes == len(LENGTHS)

    source = Source(DatasetConfig(name="back", source=str(out / "raw_data/tiny")))
    assert format_of(source).name == "robo_dopamine"
    steps = lake.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM active_segments WHERE kind = 'step' ORDER BY ALL"
    )
    facts = lake.rows("SELECT episode_index, task FROM episodes ORDER BY 1")
    read_steps = []
    read_tasks = []
    for record in list_episodes(source).records:
        episode = int(record.source_id[-6:])
        read_tasks.append((episode, record.task))
        read_steps += [(episode, s.name, s.start_frame, s.end_frame) for s in record.steps]
    assert sorted(read_tasks) == facts
    assert sorted(read_steps) == steps

    splits = dict(lake.rows("SELECT episode_index, split FROM splits"))
    progress: dict[int, list[float]] = {}
    for episode, value in lake.rows(
        "SELECT episode_index, progress FROM active_progress ORDER BY episode_index, frame_index"
    ):
        progress.setdefault(episode, []).append(value)
    items = list(
        chain.from_iterable(
            json.loads(path.read_text()) for path in (out / "train_data/train_jsons").iterdir()
        )
    )
    assert len(items) == exported.samples == len({item["id"] for item in items})
    signs = set()
    for item in items:
        id_match = re.fullmatch(r"tiny_(\d+)-bf_(\d+)-af_(\d+)", item["id"])
        assert id_match
        episode, earlier_frame, later_frame = map(int, id_match.groups())
        question, answer = (turn["value"] for turn in item["conversations"])
        assert question.count("<image>") == len(item["image"])
        assert question.count(item["task"]) == 1
        percent = float(re.fullmatch(r"<score>([+-]\d+\.\d)%</score>", answer)[1])  # type: ignore[index]
        assert percent == pytest.approx(
            score(progress[episode][earlier_frame], progress[episode][later_frame]), abs=0.051
        )
        signs.add(np.sign(percent))
        pictures_read = [cv2.imread(str(out / path)) for path in item["image"]]
        assert all(picture is not None for picture in pictures_read)
        # The first picture is where the run begins, the second where a run of its task is done
        end = re.search(r"tiny_(\d+)/cam_high/frame_(\d+)\.jpg", item["image"][1])
        assert end
        assert (int(end[1]) != 4, int(end[2])) == (True, LENGTHS[int(end[1])] - 1)
        assert splits[int(end[1])] == splits[episode], "no pair lies across two splits"
    assert signs >= {1.0, -1.0}
    frames = [
        f.rgb() for f in decode(next((out / "raw_data").rglob("episode_000000/cam_high.mp4")))
    ]
    stored = cv2.imread(str(out / "train_data/tiny_000000/cam_high/frame_000000.jpg"))
    assert stored is not None
    assert np.abs(stored[..., ::-1].astype(int) - frames[0].astype(int)).mean() < 3


def test_a_run_without_a_text_ends_like_no_other(own, tmp_path):
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET success = true, task = NULL")
    out = tmp_path / "out"
    ROBO_DOPAMINE.export(lake, ANY, out, ROBO_DOPAMINE.options(per_run=2))
    assert len(list((out / "raw_data/tiny").glob("task_*"))) == len(LENGTHS)
    files = (out / "train_data/train_jsons").iterdir()
    for item in chain.from_iterable(json.loads(path.read_text()) for path in files):
        ends_like = item["image"][1].split("/")[1]
        assert item["id"].startswith(ends_like)


ANNOTATIONS_JSON = EXPORT_KINDS["annotations-json"]

FIELDS = {"role", "content", "style", "timestamp", "tool_calls"}


def test_what_is_written_is_read_beside_its_dataset_and_by_itself(made, corpus, tmp_path):
    out = tmp_path / "lerobot_annotations.json"
    exported = ANNOTATIONS_JSON.export(Lake(made.space, read_only=True), ANY, out)
    assert (exported.episodes, exported.frames) == (len(NAMED), sum(LENGTHS[e] for e in NAMED)), (
        "those with sure steps"
    )
    content = json.loads(out.read_text())
    assert content["version"] == 2
    assert {
        frozenset(atom)
        for atom in chain.from_iterable(map(itemgetter("atoms"), content["episodes"].values()))
    } == {frozenset(FIELDS)}

    steps = corpus.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM active_segments WHERE kind = 'step' ORDER BY ALL"
    )
    steps = [step for step in steps if step[0] in NAMED]
    # Beside its dataset, by the reader of sources
    source = tmp_path / "beside"
    shutil.copytree(made.build.dataset.source, source)
    shutil.copy(out, source / "meta" / out.name)
    records = list_episodes(Source(DatasetConfig(name="tiny", source=str(source)))).records
    assert {r.episode_index for r in records if r.steps_from == "visualizer"} == set(NAMED)
    drawn = []
    for record in records:
        for step in record.steps:
            drawn.append((record.episode_index, step.name, step.start_frame, step.end_frame))
    assert set(steps) <= set(drawn)

    # By itself, as a label run
    imported = import_annotations(corpus, out, "tiny", "annotations-json")
    assert (imported.episodes, imported.refused) == (len(NAMED), ())
    spans = corpus.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM segments WHERE label_run = ?",
        [imported.label_run],
    )
    assert set(steps) <= set(spans)


def test_version_1_and_files_that_are_none(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(
            {"episodes": {"3": {"subtasks": [{"label": "reach", "start": 0.5, "end": 1.0}]}}}
        )
    )
    [annotation] = read_visualizer(path)
    label = annotation.label(20, 10.0, None)
    assert [(s.name, s.start_frame, s.end_frame) for s in label.segments] == [
        ("Between steps", 0, 5), ("reach", 5, 10), ("Done", 10, 20)]  # fmt: skip
    cases: list[tuple[Any, str]] = [
        ([], "no object `episodes`"),
        ({"episodes": {"a": {}}}, "no object `episodes`"),
        ({"episodes": {"0": {"atoms": []}}}, "has no steps"),
        (
            {"episodes": {"0": {"atoms": [{"style": "subtask", "content": "x"}]}}},
            "episode 0 has atoms",
        ),
        ({"episodes": {"0": {"subtasks": [{"label": "x"}]}}}, "episode 0 has atoms or subtasks"),
    ]
    for content, reason in cases:
        path.write_text(json.dumps(content))
        with pytest.raises(ImportedError, match=reason):
            read_visualizer(path)
    with pytest.raises(ImportedError, match="cannot be read"):
        read_visualizer(tmp_path / "gone.json")


DESCRIPTORS = {
    "score": Descriptor("How far.", "higher", (0.0, 1.0)),
    "still": Descriptor("Does it rest?"),
}


def table_of(episodes: list[tuple[int, list[int]]], **changed: Any) -> pa.Table:
    """A small table that keeps the rules, of (episode, frames); each episode has 100 rows of its dataset."""
    rows = []
    for e, frames in episodes:
        rows += [(100 * e + f, e, f) for f in frames]
    columns = {
        name: np.array(list(map(itemgetter(k), rows)), np.int64)
        for k, name in enumerate(("index", "episode_index", "frame_index"))
    }
    columns |= {
        "score": np.linspace(0, 1, len(rows), dtype=np.float32),
        "still": np.zeros(len(rows), bool),
    }
    table = pa.table(columns | changed.pop("columns", {}))
    facts = metadata(
        changed.pop("descriptors", DESCRIPTORS), {"made": "here"}, [e for e, _ in episodes]
    )
    return table.replace_schema_metadata(facts | changed)


WHOLE = [(0, [0, 1, 5]), (3, [2, 3, 4])]
ROWS = 6
UP: Any = "up"  # words that the convention does not have
WORLD: Any = "world"
BROKEN: list[tuple[Callable[[], pa.Table], str]] = [
    (lambda: table_of(WHOLE).replace_schema_metadata({}), "neither its metadata names"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.format": "other"}), "its format is 'other'"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.schema_version": "2"}), "schema version is 2"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.provenance": "[]"}), "provenance: Input should be an object"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.episode_indices": "[3,0]"}), "sorted list"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.episode_indices": "[0]"}), "not among episode_indices"),
    (lambda: table_of(WHOLE).drop_columns(["index"]), "lacks the columns index"),
    (lambda: table_of(WHOLE).drop_columns(["score"]), "are not the signals described"),
    (lambda: table_of(WHOLE, columns={"frame_index": np.arange(ROWS, dtype=np.int32)}), "int64"),
    (lambda: table_of([(0, [1, 0])]), "index has to rise"),
    (lambda: table_of([(3, [0]), (0, [301])]), "in order of episode_index|has to rise"),
    (lambda: table_of(WHOLE, columns={"frame_index": np.array([0, 1, 4, 2, 3, 4])}), "index - frame_index"),
    (lambda: table_of(WHOLE, columns={"score": np.full(ROWS, np.nan)}), "does not allow it"),
    (lambda: table_of(WHOLE, columns={"score": np.full(ROWS, np.inf)}), "infinite"),
    (lambda: table_of(WHOLE, columns={"score": np.full(ROWS, 1.5)}), "leaves its bounds"),
    (lambda: table_of(WHOLE, columns={"score": ["a"] * ROWS}), "floating numbers"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor(" ")}), "still: description ' '"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor("x", UP)}), "direction 'up'"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor("x", scope=WORLD)}), "scope 'world'"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor("x", bounds=(1, 0))}), "bounds"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), BROKEN)
def test_every_rule_is_checked(make, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        check(make())
    pq.write_table(make(), tmp_path / "broken.parquet")
    with pytest.raises(ImportedError, match=reason):
        read_signals(tmp_path / "broken.parquet")


def test_what_keeps_the_rules_passes_in_every_state_of_the_convention(tmp_path):
    assert check(table_of(WHOLE)) == DESCRIPTORS
    newer = {
        k: v for k, v in table_of(WHOLE).schema.metadata.items() if k.startswith(b"lerobot.scores.")
    }
    assert check(table_of(WHOLE).replace_schema_metadata(newer)) == DESCRIPTORS
    pq.write_table(table_of(WHOLE), tmp_path / "s.parquet")
    first, second = read_signals(tmp_path / "s.parquet")
    assert (first.episode_index, first.frames, second.frames) == (0, (0, 1, 5), (2, 3, 4))
    label = first.label(8, 10.0, None)
    assert label.progress is not None
    # Straight between what is known, and as it was after the last
    np.testing.assert_allclose(
        label.progress, np.interp(np.arange(8), [0, 1, 5], first.progress), atol=1e-6
    )
    assert [(s.name, s.completed) for s in label.segments] == [("Unnamed step 1", False)]
    with pytest.raises(ImportedError, match="a row of frame 5, this episode has 4"):
        first.label(4, 10.0, None)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([STEP, IDLE, DONE]), st.booleans(), st.integers(0, 4)),
                   min_size=1, max_size=8),
    planned=st.integers(5, 7),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_any_label_comes_back_but_for_names(
    parts: list[tuple[int, str, bool, int]], planned: int, seed: int
):
    segments = []
    start_frame = 0
    for length, kind, completed, step in parts:
        # Outside of steps the kind says whether it is complete
        is_step = kind == STEP
        ended = completed if is_step else kind == DONE
        segments.append(
            Segment("x", start_frame, start_frame + length, kind, ended, step if is_step else None)
        )
        start_frame += length
    progress = np.random.default_rng(seed).random(start_frame, np.float32)
    values = sidecars.label_values(Label(segments, planned, progress=progress))
    table = pa.table(
        {
            "index": np.arange(start_frame),
            "episode_index": np.zeros(start_frame, np.int64),
            "frame_index": np.arange(start_frame),
        }
        | values
    )
    facts = metadata(sidecars.LABEL_SIGNALS, {}, [0])
    [annotation] = annotations(table.replace_schema_metadata(facts))
    label = annotation.label(start_frame, 10.0, None)
    compared_fields = ("start_frame", "end_frame", "kind", "completed", "step")
    facts = attrgetter(*compared_fields)
    assert list(map(facts, label.segments)) == list(map(facts, segments))
    assert label.num_planned == planned
    np.testing.assert_array_equal(label.progress, progress)  # type: ignore[arg-type]
