"""Question-answer samples: seeded, equal in number and time at any frame rate, and true to their labels."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.samples import samples_stage, wording
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.procvqa import progress_answer, window
from annotate.samples.wording import template_version
from annotate.segments import IDLE, Segment
from core.tables import TABLES
from tests.kits.labelled import episode

CONFIG = SamplesConfig()
NO_PROGRESSLM = {f"{f}_per_episode": 0 for f in ("text_demo", "visual_demo", "cross_view", "unanswerable")}
ONLY_C = NO_PROGRESSLM | {"segmentation_per_episode": 0, "actions_per_episode": 0}
PUBLISHED = SamplesConfig(profile="procvlm", **NO_PROGRESSLM)
TAG = re.compile(r"<progress>(\d+\.\d\d)%</progress>")


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    """The ProcVQA samples."""
    found = samples_stage(episodes, config.model_copy(update=NO_PROGRESSLM)).to_pylist()
    assert all(r["family"].startswith("procvqa") for r in found)
    return found


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
    both = rows(episode())
    alone = {
        "procvqa_a": {"actions_per_episode": 0, "progress_per_episode": 0},
        "procvqa_b": {"segmentation_per_episode": 0, "progress_per_episode": 0},
        "procvqa_c": {"segmentation_per_episode": 0, "actions_per_episode": 0},
    }
    for name, quotas in alone.items():
        assert family(both, name) == rows(episode(), config=SamplesConfig(**quotas)) != []


# Quota and time


@pytest.mark.parametrize("quota", [0, 1, 2, 5, 12, 40])
@pytest.mark.parametrize(("fps", "seconds"), [(10.0, 20.0), (30.0, 20.0), (10.0, 90.0)])
def test_the_quota_is_per_episode_whatever_its_length_and_rate(quota: int, fps: float, seconds: float):
    config = SamplesConfig(**ONLY_C | {"progress_per_episode": quota})
    found = rows(episode(0, fps, seconds), episode(1, fps, seconds), config=config)
    for index in (0, 1):
        assert sum(r["episode_index"] == index for r in found) == quota


@given(st.integers(0, 200), st.floats(1.0, 30.0), st.booleans())
def test_every_family_has_as_many_samples_at_10_as_at_30_fps(index: int, seconds: float, finished: bool):
    """Of the balanced profile; a run of n seconds gives 5 n samples of a family at most."""
    seconds = max(seconds, 4.0)
    counts = [
        Counter(r["family"] for r in samples_stage([episode(index, fps, seconds, finished)], CONFIG).to_pylist())
        for fps in (10.0, 30.0)
    ]
    assert counts[0] == counts[1]
    assert counts[0]["procvqa_c"] == CONFIG.progress_per_episode


def test_the_published_profile_grows_with_the_frames():
    slow, fast = (len(rows(episode(0, fps), config=PUBLISHED)) for fps in (10.0, 30.0))
    assert 2.7 < fast / slow < 3.3


def test_the_published_profile_has_the_published_counts():
    """300 frames of which 20 are done: c 234, b 177, a 2 on average (specification, section 5.4)."""
    counts, pictures = [], []
    for index in range(60):
        e = episode(index, 10.0, 30.0)
        segments = [*e.segments[:3], replace(e.segments[3], start_frame=281)]
        segments[2] = replace(segments[2], end_frame=281)
        curve = np.interp(np.arange(300), [0, 280, 299], [0, 1, 1]).astype(np.float32)
        e = replace(e, segments=segments, progress=curve)
        assert (e.progress >= 1).sum() == 20
        found = rows(e, config=PUBLISHED)
        counts.append([sum(r["family"] == f for r in found) for f in ("procvqa_a", "procvqa_b", "procvqa_c")])
        done = [r for r in found if r["family"] == "procvqa_c" and r["state"] == "finished"]
        assert len(done) == 10
        pictures += [len(r["frames"]) for r in found if r["family"] != "procvqa_a"]
    mean, error = np.mean(counts, axis=0), np.std(counts, axis=0) / np.sqrt(len(counts))
    assert (np.abs(mean - [2, 178, 234]) < 4 * np.maximum(error, 0.1) + 1).all(), mean
    assert abs(np.mean(pictures) - 8.0) < 0.2  # fewer than 5 to 17 on the first frames


def test_the_published_windows_are_single_frames_or_rows_of_them():
    late = [r["frames"] for r in rows(episode(0, 10.0, 60.0), config=PUBLISHED) if r["family"] != "procvqa_a"]
    late = [f for f in late if f[-1] > 20]
    assert all(f == list(range(f[0], f[-1] + 1)) for f in late)
    assert {len(f) for f in late} == {1, *range(5, 18)}
    assert 0.2 < sum(len(f) == 1 for f in late) / len(late) < 0.4


def test_a_run_shorter_than_the_quota_gives_each_frame_at_most_once():
    short = episode(0, 10.0, 20.0)
    short = replace(short, progress=short.progress[:7], segments=[Segment("Grasp", 0, 7, step=0)])
    last = [r["frames"][-1] for r in family(rows(short, config=SamplesConfig(progress_per_episode=50)), "procvqa_c")]
    assert last == sorted(set(last))
    assert set(last) <= set(range(7))


def test_moments_are_spread_over_the_run():
    for index in range(5):
        last = [r["frames"][-1] for r in family(rows(episode(index, seconds=100.0)), "procvqa_c")]
        assert (min(last), max(last)) == (0, 999)
        assert max(b - a for a, b in pairwise(sorted(last))) <= 420  # the pause, of 326 frames, has two of twelve


def test_windows_go_by_time_not_by_frames():
    config = SamplesConfig(**ONLY_C | {"progress_per_episode": 30})
    slow, fast = (sorted(rows(episode(0, f), config=config), key=lambda r: r["frames"][-1]) for f in (10.0, 20.0))
    assert len(slow) == len(fast)
    for a, b in zip(slow, fast, strict=True):
        times_a, times_b = np.array(a["frames"]) / 10, np.array(b["frames"]) / 20
        if abs(times_a[-1] - times_b[-1]) >= 0.1:  # the moment, up to a frame: where it is of another state
            assert a["state"] != b["state"] or abs(times_a[-1] - times_b[-1]) < 0.6
            continue
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
    found = [r for r in table.to_pylist() if r["family"].startswith("procvqa")]
    assert {r["family"] for r in found} == {"procvqa_a", "procvqa_b", "procvqa_c"}
    for r in found:
        assert (r["dataset"], r["episode_index"], r["chunk"], r["split"]) == ("d", 3, 0, "train")
        assert (r["label_run"], r["camera"]) == ("run", "front")
        assert r["question"].count("<image>") == len(r["frames"]) > 0
        assert [(p["episode_index"], p["camera"], p["frame_index"], p["edit"]) for p in r["pictures"]] == [
            (3, "front", f, "") for f in r["frames"]
        ]
        assert ("Put the cup away" in r["question"]) == (r["variant"] != "untold")
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
    done = "No action remains. All of the task is done: Grasp the cup, Place the cup."
    assert progress_answer(e, 199) == f"{done}\n<progress>100.00%</progress>"
    left = "Remaining actions:\n1. Place the cup"
    assert progress_answer(episode(finished=False), 199) == f"{left}\n<progress>75.00%</progress>"


def test_the_annotators_words_are_the_reason_where_they_are_at_hand():
    e = replace(episode(), reasons={195: "The cup stands in the\ncupboard <image>.", 100: "Too early."})
    assert progress_answer(e, 199).startswith("No action remains. The cup stands in the cupboard image.\n")
    assert "All of the task" in progress_answer(e, 185)


def test_next_and_remaining_actions():
    found = family(rows(*(episode(i) for i in range(8))), "procvqa_b")
    assert {r["variant"] for r in found} == {"next", "remaining"}
    for r in found:
        now, e = r["frames"][-1], episode(r["episode_index"])
        left = [e.steps[k] for k in e.remaining(now)]
        if not left:
            assert r["answer"] == "No action remains. All of the task is done: Grasp the cup, Place the cup."
        elif r["variant"] == "next":
            assert r["answer"] == left[0]
        else:
            listed = [f"{k}. {name}" for k, name in enumerate(left, 1)]
            assert r["answer"] == "\n".join(["Remaining actions:", *listed])
        assert r["progress"] is None


def test_remaining_steps_follow_the_plan_through_failures():
    a, b, c = "A", "B", "C"
    segments = [
        Segment(a, 0, 5, step=0),
        Segment("i", 5, 7, IDLE),
        Segment(b, 7, 9, completed=False, step=1),  # a failed attempt
        Segment(a, 9, 12, step=0),  # A undone and done again
        Segment(b, 12, 15, step=1),
    ]
    e = replace(episode(), segments=segments, progress=np.linspace(0, 0.7, 15), plan=(a, b, c))
    assert [e.remaining(t) for t in (0, 3, 4, 6, 8, 9, 11, 13, 14)] == [
        [0, 1, 2], [0, 1, 2], [1, 2], [1, 2], [1, 2], [0, 1, 2], [1, 2], [1, 2], [2]
    ]  # fmt: skip
    whole = replace(e, plan=(a, b))
    assert whole.remaining(14) == [1]  # below 1: the last step was not what it should have been
    assert replace(whole, progress=np.linspace(0, 1, 15)).remaining(14) == []
    assert replace(e, plan=()).steps == ("A", "B")
    assert replace(e, plan=(), segments=[Segment(b, 0, 15, step=1)]).steps == ("step 1", "B")


def test_segmentation_answers_name_valid_spans_of_picture_numbers():
    variants = Counter()
    for index in range(12):
        e = episode(index)
        found = family(rows(e, config=SamplesConfig(segmentation_per_episode=3)), "procvqa_a")
        variants.update(r["variant"] for r in found)
        for row in found:
            frames = row["frames"]
            assert 2 <= len(frames) <= 16
            assert f"{len(frames)} pictures" in row["question"]
            spans = json.loads(row["answer"])
            steps = [s for s in e.segments if s.kind == "step"]
            if row["variant"] == "range":
                (step,) = [s for s in steps if s.start_frame == frames[0] and s.end_frame - 1 == frames[-1]]
                steps = [step]
            else:
                assert len(frames) >= 8
                assert (frames[0], frames[-1]) == (0, len(e.progress) - 1)
            assert [s["action_description"] for s in spans] == [s.name for s in steps]
            for span, step in zip(spans, steps, strict=True):
                shown = [i for i, f in enumerate(frames) if step.start_frame <= f < step.end_frame]
                assert (span["start_frame"], span["end_frame"]) == (shown[0], shown[-1])
            assert all(a["end_frame"] < b["start_frame"] for a, b in pairwise(spans))
    assert variants == {"whole": 12, "untold": 12, "range": 12}
    two = Counter(r["variant"] for i in range(40) for r in family(rows(episode(i)), "procvqa_a"))
    assert two["whole"] == 40
    assert 8 < two["untold"] < 32
    assert two["untold"] + two["range"] == 40


def test_a_step_between_two_pictures_is_left_out_of_the_segmentation():
    e = replace(episode(), segments=[Segment("A", 0, 199, step=0), Segment("blink", 199, 200, IDLE)], plan=("A",))
    for row in family(rows(e), "procvqa_a"):
        assert [s["action_description"] for s in json.loads(row["answer"])] == ["A"]
    resting = replace(episode(), segments=[Segment("rest", 0, 200, IDLE)])
    assert family(rows(resting), "procvqa_a") == []


def test_a_task_text_cannot_add_pictures():
    for r in rows(replace(episode(), task="Look at <image> {task}")):
        assert r["question"].count("<image>") == len(r["frames"])
    untold = [r for r in rows(replace(episode(), task=None)) if r["variant"] != "untold"]
    assert all("(not stated)" in r["question"] for r in untold)


def test_no_episodes_give_an_empty_table():
    assert samples_stage([], CONFIG).equals(pa.Table.from_pylist([], schema=TABLES["samples"].schema))


def test_the_template_version_covers_the_templates(monkeypatch: pytest.MonkeyPatch, tmp_path):
    before = template_version()
    (tmp_path / "procvqa.toml").write_text("x = 1")
    monkeypatch.setattr(wording, "TEMPLATES", tmp_path)
    assert template_version() != before


# Labels that are not sure, or have no names


def unnamed(e: LabelledEpisode) -> LabelledEpisode:
    return replace(e, named=False)


def test_a_label_without_names_gives_progress_and_nothing_else():
    for config in (CONFIG, PUBLISHED):
        found = rows(unnamed(episode()), config=config)
        assert {(r["family"], r["variant"]) for r in found} == {("procvqa_c", "share")}
        assert {r["names_steps"] for r in found} == {False}
        assert not any(step in r["question"] + r["answer"] for r in found for step in episode().steps)
        assert not any("action" in r["question"].lower() + r["answer"].lower() for r in found)
        assert all(TAG.fullmatch(r["answer"]) for r in found)


def test_the_moments_asked_about_do_not_depend_on_names():
    with_names, without = (family(rows(e), "procvqa_c") for e in (episode(), unnamed(episode())))
    assert [(r["frames"], r["progress"]) for r in with_names] == [(r["frames"], r["progress"]) for r in without]


@pytest.mark.parametrize(
    ("confidence", "families"),
    [(None, "abc"), (0.5, "abc"), (0.49, "c"), (0.2, "c"), (0.19, ""), (0.0, "")],
)
def test_unsure_labels_give_less(confidence: float | None, families: str):
    config = CONFIG.model_copy(update={"min_confidence": 0.2})
    found = rows(replace(episode(), confidence=confidence), episode(1), config=config)
    of_first = {r["family"][-1] for r in found if r["episode_index"] == 0}
    assert of_first == set(families)
    assert {r["family"][-1] for r in found if r["episode_index"] == 1} == set("abc"), "others are not concerned"


def test_by_default_every_label_gives_progress_and_the_surer_half_names():
    found = rows(replace(episode(), confidence=0.0), replace(episode(1), confidence=0.5))
    assert Counter(r["family"][-1] for r in found if r["episode_index"] == 0).keys() == {"c"}
    assert Counter(r["family"][-1] for r in found if r["episode_index"] == 1).keys() == set("abc")
