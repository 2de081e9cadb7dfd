"""Question-answer samples: seeded, equal in number and time at any frame rate, and true to their labels."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.samples import (
    LabelledEpisode,
    SamplesConfig,
    progress_answer,
    remaining_steps,
    samples_stage,
    template_version,
    window,
)
from annotate.segments import DONE, IDLE, Segment
from warehouse.tables import TABLES

CONFIG = SamplesConfig()
TAG = re.compile(r"<progress>(\d+\.\d\d)%</progress>")


def episode(index: int = 0, fps: float = 10.0, seconds: float = 20.0, finished: bool = True) -> LabelledEpisode:
    """Two steps with a pause between them, each a third of the run but the last seconds."""
    n, end = int(seconds * fps), int((seconds - 2) * fps)
    third = end // 3
    segments = [
        Segment("Grasp the cup", 0, third, step=0),
        Segment("Wait", third, 2 * third, IDLE),
        Segment("Place the cup", 2 * third, end, completed=finished, step=1),
        Segment("Done", end, n, DONE) if finished else Segment("Wait", end, n, IDLE),
    ]
    ends = [0.5, 0.5, 1.0, 1.0] if finished else [0.5, 0.5, 0.75, 0.75]
    curve = np.interp(np.arange(n), [0, *(s.end_frame - 1 for s in segments)], [0.0, *ends]).astype(np.float32)
    return LabelledEpisode("d", index, 0, "train", "run", "front", fps, "Put the cup away", segments, curve)


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    return samples_stage(episodes, config).to_pylist()


def family(found: list[dict], name: str) -> list[dict]:
    return [r for r in found if r["family"] == name]


def by_id(found: list[dict]) -> dict[str, dict]:
    return {r["sample_id"]: r for r in found}


# Seeds


def test_samples_do_not_depend_on_the_order_of_episodes():
    episodes = [episode(i) for i in range(5)]
    forward, backward = rows(*episodes), rows(*reversed(episodes))
    alone = [r for e in episodes for r in rows(e)]
    assert by_id(forward) == by_id(backward) == by_id(alone)
    assert len(by_id(forward)) == len(forward)


def test_samples_differ_with_the_seed_and_between_episodes():
    def moments(found: list[dict]) -> list[int]:
        return [r["frames"][-1] for r in family(found, "procvqa_c")]

    first = moments(rows(episode()))
    assert first == moments(rows(episode()))
    assert first != moments(rows(episode(), config=SamplesConfig(seed=1)))
    assert first != moments(rows(episode(1)))
    assert first != moments(rows(replace(episode(), dataset="e")))


def test_one_family_does_not_change_another():
    both, alone = rows(episode()), rows(episode(), config=SamplesConfig(segmentation_per_episode=0))
    assert family(both, "procvqa_c") == alone
    without = rows(episode(), config=SamplesConfig(progress_per_episode=0))
    assert family(both, "procvqa_a") == without


# Quota and time


@pytest.mark.parametrize("quota", [0, 1, 2, 5, 12, 40])
@pytest.mark.parametrize(("fps", "seconds"), [(10.0, 20.0), (30.0, 20.0), (10.0, 90.0)])
def test_the_quota_is_per_episode_whatever_its_length_and_rate(quota: int, fps: float, seconds: float):
    config = SamplesConfig(progress_per_episode=quota, segmentation_per_episode=0)
    found = rows(episode(0, fps, seconds), episode(1, fps, seconds), config=config)
    for index in (0, 1):
        count = sum(r["episode_index"] == index for r in found)
        assert max(0, quota - 3) <= count <= quota  # what is drawn twice counts once


def test_a_run_shorter_than_the_quota_gives_each_frame_at_most_once():
    short = episode(0, 10.0, 20.0)
    short = replace(short, progress=short.progress[:7], segments=[Segment("Grasp", 0, 7, step=0)])
    last = [r["frames"][-1] for r in family(rows(short, config=SamplesConfig(progress_per_episode=50)), "procvqa_c")]
    assert last == sorted(set(last))
    assert set(last) <= set(range(7))


def test_moments_are_spread_over_the_run():
    for index in range(5):
        last = [r["frames"][-1] for r in family(rows(episode(index, seconds=100.0)), "procvqa_c")]
        assert last[0] < 200
        assert last[-1] >= 800
        assert max(b - a for a, b in pairwise(last)) <= 220


def test_windows_go_by_time_not_by_frames():
    config = SamplesConfig(progress_per_episode=30, segmentation_per_episode=0)
    slow, fast = rows(episode(0, 10.0), config=config), rows(episode(0, 20.0), config=config)
    assert len(slow) == len(fast)
    for a, b in zip(slow, fast, strict=True):
        times_a, times_b = np.array(a["frames"]) / 10, np.array(b["frames"]) / 20
        assert abs(times_a[-1] - times_b[-1]) < 0.1  # the moment, up to a frame
        if times_a[0] > 0.1:  # near the start of the run the window is as long as the run: equal up to two frames
            np.testing.assert_allclose(times_a - times_a[-1], times_b - times_b[-1], atol=1e-9)
        elif len(times_a) == len(times_b) == config.window_frames:
            np.testing.assert_allclose(times_a, times_b, atol=0.2)


def test_window_in_exact_frames():
    config = SamplesConfig(window_frames=4, window_step_s=0.4)
    assert window(100, 10.0, config) == [88, 92, 96, 100]
    assert window(100, 20.0, config) == [76, 84, 92, 100]
    assert window(100, 29.97, config) == [64, 76, 88, 100]
    assert window(5, 10.0, config) == [0, 2, 3, 5]
    assert window(2, 10.0, config) == [0, 1, 2]
    assert window(0, 10.0, config) == [0]


def test_the_number_of_pictures_does_not_tell_the_time():
    """With fewer pictures near the start, a model learnt to count them and never looked."""
    config = SamplesConfig(window_frames=4, window_step_s=0.4)
    assert {len(window(now, 20.0, config)) for now in range(3, 200)} == {4}


@given(st.integers(0, 500), st.sampled_from([1.0, 2.0, 10.0, 29.97, 60.0]), st.integers(1, 9), st.floats(0.01, 3))
def test_no_window_shows_a_frame_twice(now: int, fps: float, count: int, step_s: float):
    frames = window(now, fps, SamplesConfig(window_frames=count, window_step_s=step_s))
    assert frames == sorted(set(frames))
    assert frames[-1] == now
    assert frames[0] >= 0
    assert len(frames) <= count


# What they say


@pytest.mark.parametrize("finished", [True, False])
def test_each_sample_is_true_to_its_label(finished: bool):
    e = episode(3, finished=finished)
    table = samples_stage([e], SamplesConfig(progress_per_episode=40))
    assert table.schema == TABLES["samples"].schema
    found = table.to_pylist()
    assert {r["family"] for r in found} == {"procvqa_a", "procvqa_c"}
    for r in found:
        assert (r["dataset"], r["episode_index"], r["chunk"], r["split"]) == ("d", 3, 0, "train")
        assert (r["label_run"], r["camera"]) == ("run", "front")
        assert r["question"].count("<image>") == len(r["frames"]) > 0
        assert "Put the cup away" in r["question"]
        assert r["frames"] == sorted(set(r["frames"]))
        assert 0 <= r["frames"][0] <= r["frames"][-1] < len(e.progress)
        assert r["num_tokens"] >= 64 * len(r["frames"])  # 256 px pictures, patches of 32
    for r in family(found, "procvqa_c"):
        label = float(e.progress[r["frames"][-1]])
        assert r["progress"] == pytest.approx(label)
        assert TAG.findall(r["answer"]) == [f"{100 * label:.2f}"]


def test_answers_in_words():
    e = episode(finished=True)
    assert progress_answer(e, 0) == "\n".join(
        ["Remaining actions:", "1. Grasp the cup", "2. Place the cup", "<progress>0.00%</progress>"]
    )
    assert progress_answer(e, 59) == "\n".join(
        ["Remaining actions:", "1. Place the cup", "<progress>50.00%</progress>"]
    )
    assert progress_answer(e, 199) == "No action remains.\n<progress>100.00%</progress>"
    assert progress_answer(episode(finished=False), 199) == "The robot does not go on.\n<progress>75.00%</progress>"


def test_remaining_steps_keep_repeats_and_leave_out_rest():
    segments = [Segment("A", 0, 5, step=0), Segment("i", 5, 7, IDLE), Segment("B", 7, 9, step=1), Segment("A", 9, 12)]
    assert remaining_steps(segments, 0) == ["A", "B", "A"]
    assert remaining_steps(segments, 3) == ["A", "B", "A"]
    assert remaining_steps(segments, 4) == ["B", "A"]  # frame 4 completes A
    assert remaining_steps(segments, 8) == ["A"]
    assert remaining_steps(segments, 11) == []


def test_segmentation_answers_name_valid_spans_of_picture_numbers():
    for index in range(8):
        e = episode(index)
        (row,) = family(rows(e), "procvqa_a")
        frames = row["frames"]
        assert 8 <= len(frames) <= 16
        assert (frames[0], frames[-1]) == (0, len(e.progress) - 1)
        assert f"{len(frames)} pictures" in row["question"]
        spans = json.loads(row["answer"])
        steps = [s for s in e.segments if s.kind == "step"]
        assert [s["action_description"] for s in spans] == [s.name for s in steps]
        for span, step in zip(spans, steps, strict=True):
            shown = [i for i, f in enumerate(frames) if step.start_frame <= f < step.end_frame]
            assert (span["start_frame"], span["end_frame"]) == (shown[0], shown[-1])
        assert all(a["end_frame"] < b["start_frame"] for a, b in pairwise(spans))


def test_a_step_between_two_pictures_is_left_out_of_the_segmentation():
    e = replace(episode(), segments=[Segment("A", 0, 199, step=0), Segment("blink", 199, 200, IDLE)])
    (row,) = family(rows(e), "procvqa_a")
    assert [s["action_description"] for s in json.loads(row["answer"])] == ["A"]
    resting = replace(episode(), segments=[Segment("rest", 0, 200, IDLE)])
    assert family(rows(resting), "procvqa_a") == []


def test_a_task_text_cannot_add_pictures():
    for r in rows(replace(episode(), task="Look at <image> {task}")):
        assert r["question"].count("<image>") == len(r["frames"])
    assert all("(not stated)" in r["question"] for r in rows(replace(episode(), task=None)))


def test_no_episodes_give_an_empty_table():
    assert samples_stage([], CONFIG).equals(pa.Table.from_pylist([], schema=TABLES["samples"].schema))


def test_the_template_version_covers_the_templates(monkeypatch: pytest.MonkeyPatch, tmp_path):
    import annotate.samples as module

    before = template_version()
    (tmp_path / "procvqa_a.txt").write_text("x")
    monkeypatch.setattr(module, "TEMPLATES", tmp_path)
    assert template_version() != before
