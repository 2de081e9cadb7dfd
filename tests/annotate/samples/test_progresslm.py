"""ProgressLM samples: true to the label, n/a where nothing fits, edited or covered pictures."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from operator import itemgetter

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.config import SamplesConfig
from annotate.samples import edits, samples_stage
from annotate.samples.edits import covered_picture
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.procvqa import progress_answer, window
from annotate.samples.unanswerable import UNANSWERABLE
from annotate.samples.wording import parse_answer, parse_reply, written_ref, written_score
from core.domain.label import IDLE, Episode, Segment
from core.errors import FailedError
from tests.kits.files import table
from tests.kits.labelled import STEPS, episode, relabelled

CONFIG = SamplesConfig()
MANY = SamplesConfig(unanswerable_per_episode=40)
OTHER = ("Open the drawer", "Close the drawer")


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    sample_rows = samples_stage(episodes, config).to_pylist()
    return [r for r in sample_rows if r["family"].startswith("progresslm")]


def corpus() -> list[LabelledEpisode]:
    runs = [
        episode(i, finished=i % 2 == 0, cameras=("front", "wrist") if i % 3 == 0 else ("front",))
        for i in range(10)
    ]
    return runs + [episode(i, task="Use the drawer", steps=OTHER) for i in range(10, 15)]


def test_without_text_or_whole_run_there_is_nothing_to_compare_with():
    assert rows(episode(task=None), config=MANY) == []
    still = relabelled(
        episode(finished=False), segments=[], plan=(), progress=np.zeros(200, np.float32)
    )
    assert rows(still, config=MANY) == []
    never = relabelled(episode(finished=False), segments=[Segment("rest", 0, 200, IDLE)], plan=())
    assert rows(never) == []


def test_an_editor_is_an_entry_point_and_must_edit():
    with pytest.raises(FailedError, match="entry point 'x'"):
        edits.load_editor("x")
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(FailedError, match="left a picture as it was"):
        edits.edited_picture(rgb, "take it away", 1, lambda rgb, *_: rgb, "still")
    with pytest.raises(FailedError, match="did not return an array uint8"):
        edits.edited_picture(rgb, "take it away", 1, lambda rgb, *_: rgb / 2, "half")
    edited_rgb = edits.edited_picture(rgb, "", 3, lambda rgb, _, seed: rgb + np.uint8(seed), "lamp")
    assert (edited_rgb == 3).all()
    config = SamplesConfig(image_editor="lamp", unanswerable_per_episode=20)
    edited_rows = [r for r in rows(*corpus(), config=config) if r["reason"] == "edited"]
    assert edited_rows
    assert all(
        r["edit_instruction"].startswith("Take away, or replace by something else,")
        for r in edited_rows
    )
    assert {
        r["edit_instruction"] for r in rows(*corpus(), config=config) if r["reason"] != "edited"
    } == {None}


LISTED = (Episode("made", 70, 7, 10.0, 50, "Wipe the window", None, "train", ("front",)),)


def unanswerable(*episodes: LabelledEpisode, listed: tuple[Episode, ...] = ()) -> list[dict]:
    return [
        r for r in samples_stage(episodes, MANY, listed).to_pylist() if r["family"] == UNANSWERABLE
    ]


def two_cameras(index: int = 0) -> LabelledEpisode:
    e = episode(index, cameras=("front", "wrist"))
    return replace(e, unlike_cameras={"front": ("wrist",), "wrist": ("front",)})


def test_another_task_may_share_a_step_or_lie_beyond_the_chunk():
    wash = episode(1, task="Wash the pan", steps=(STEPS[0], "Wash the pan"))
    sample_rows = [
        r for r in unanswerable(episode(0), wash, listed=LISTED) if r["episode_index"] == 0
    ]
    other_task = [r for r in sample_rows if r["reason"] == "other_task"]
    variants = {(r["variant"], r["pictures"][-1]["episode_index"]) for r in other_task}
    # In words: the other task's steps with the run's own picture, or its own steps with a picture of another task
    assert variants == {("text", 0), ("text", 1), ("text", 70), ("visual", 1), ("visual", 70)}
    for r in other_task:
        own_picture = r["pictures"][-1]["episode_index"] == 0
        assert own_picture == ("Wash the pan" in r["question"])
    frames = [
        p["frame_index"]
        for p in chain.from_iterable(map(itemgetter("pictures"), other_task))
        if p["episode_index"] == 70
    ]
    assert min(frames) >= 12
    assert max(frames) < 50
    assert all(r["num_tokens"] > 0 for r in sample_rows)


def test_the_same_task_in_other_words_and_other_splits_are_not_shown():
    reworded = episode(1, task="Place the cup away, please")
    assert "other_task" not in {r["reason"] for r in unanswerable(episode(0), reworded)}
    held_out = replace(LISTED[0], split="val")
    sample_rows = unanswerable(
        episode(0), episode(1, task="Use the drawer", split="val"), listed=(held_out,)
    )
    by_split = {r["episode_index"]: r["split"] for r in sample_rows} | {70: "val"}
    for row in sample_rows:
        assert {by_split[p["episode_index"]] for p in row["pictures"]} <= {row["split"]}
    assert 70 in {
        p["episode_index"] for p in chain.from_iterable(map(itemgetter("pictures"), sample_rows))
    }


def test_another_camera_shows_the_same_moment_and_something_else():
    sample_rows = [r for r in unanswerable(two_cameras()) if r["reason"] == "other_camera"]
    pairs = Counter((r["pictures"][0]["camera"], r["pictures"][-1]["camera"]) for r in sample_rows)
    assert pairs.keys() == {("front", "wrist"), ("wrist", "front")}
    assert all("seen by the same camera" in r["question"] for r in sample_rows)
    similar_cameras = replace(two_cameras(), unlike_cameras={})
    assert "other_camera" not in {r["reason"] for r in unanswerable(similar_cameras)}


def test_the_picture_lies_well_outside_the_part_that_is_shown():
    e = episode()
    sample_rows = [r for r in unanswerable(e) if r["reason"] == "not_shown"]
    num_before = 0
    for r in sample_rows:
        *demonstration, last = [p["frame_index"] for p in r["pictures"]]
        assert demonstration == sorted(demonstration)
        assert len(demonstration) >= 3
        if last < demonstration[0]:
            num_before += 1
            assert e.label.progress[demonstration[0]] - e.label.progress[last] >= 0.2
            assert demonstration[-1] == 179
        else:
            assert e.label.progress[last] - e.label.progress[demonstration[-1]] >= 0.2
            assert demonstration[0] == 0
    assert 4 < num_before < len(sample_rows) - 4


def test_episodes_in_any_order_give_the_same_samples_of_every_family():
    episodes = [two_cameras(0), *(episode(k, finished=k % 2 == 0) for k in range(1, 6))]
    episodes += [episode(k, task="Use the drawer", steps=OTHER) for k in range(6, 9)]

    def samples_of(some_episodes: list[LabelledEpisode]) -> dict[str, dict]:
        rows = samples_stage(some_episodes, MANY, LISTED).to_pylist()
        return {row["sample_id"]: row for row in rows}

    forward = samples_of(episodes)
    backward = samples_of(episodes[::-1])
    assert forward == backward
    assert len({r["family"] for r in forward.values()}) > 4
    for e in episodes:
        assert [forward[r["sample_id"]] for r in procvqa_rows(e, config=MANY)] == procvqa_rows(
            e, config=MANY
        )


def run() -> dict[int, np.ndarray]:
    """A red square moves along a row before noise."""
    background = cv2.GaussianBlur(
        np.random.default_rng(0).integers(60, 200, (120, 160, 3), np.uint8), (0, 0), 3
    )
    pictures = {}
    for k in range(20):
        picture = background.copy()
        picture[50:70, 20 + 4 * k : 40 + 4 * k] = (220, 20, 20)
        pictures[10 * k] = picture
    return pictures


def test_patches_vary_and_are_the_same_for_the_same_seed():
    pictures = run()
    first_cover, same, other_cover = (
        covered_picture(pictures[100], pictures, 100, seed) for seed in (7, 7, 8)
    )
    assert (first_cover == same).all()
    changed = [(picture != pictures[100]).any(axis=2) for picture in (first_cover, other_cover)]
    assert (changed[0] != changed[1]).mean() > 0.05


def test_keyframes_of_another_size_are_made_to_fit():
    pictures = {frame: cv2.resize(p, (320, 240)) for frame, p in run().items()}
    assert covered_picture(run()[50], pictures, 50, 1).shape == (120, 160, 3)
    with pytest.raises(ValueError, match="no picture"):
        covered_picture(run()[0], {}, 0, 1)


NO_PROGRESSLM = {
    f"{f}_per_episode": 0 for f in ("text_demo", "visual_demo", "cross_view", "unanswerable")
}
PUBLISHED = SamplesConfig(profile="procvlm", **NO_PROGRESSLM)


def procvqa_rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    """The ProcVQA samples."""
    sample_rows = samples_stage(episodes, config.model_copy(update=NO_PROGRESSLM)).to_pylist()
    assert all(r["family"].startswith("procvqa") for r in sample_rows)
    return sample_rows


def test_samples_differ_with_the_seed_and_between_episodes():
    def moments(sample_rows: list[dict]) -> list[int]:
        return [r["frames"][-1] for r in sample_rows if r["family"] == "procvqa_c"]

    first = moments(procvqa_rows(episode()))
    assert first == moments(procvqa_rows(episode()))
    assert first != moments(procvqa_rows(episode(), config=SamplesConfig(seed=1)))
    assert first != moments(procvqa_rows(episode(1)))
    of_other_dataset = replace(episode().episode, dataset="e")
    assert first != moments(procvqa_rows(replace(episode(), episode=of_other_dataset)))


def test_the_published_profile_has_the_published_counts():
    # 300 frames of which 20 are done: c 234, b 177, a 2 on average (specification, section 5.4)
    counts = []
    pictures = []
    for index in range(60):
        e = episode(index, 10.0, 30.0)
        segments = [*e.label.segments[:3], replace(e.label.segments[3], start_frame=281)]
        segments[2] = replace(segments[2], end_frame=281)
        curve = np.interp(np.arange(300), [0, 280, 299], [0, 1, 1]).astype(np.float32)
        e = relabelled(e, segments=segments, progress=curve)
        assert (e.label.progress >= 1).sum() == 20
        sample_rows = procvqa_rows(e, config=PUBLISHED)
        count = Counter(r["family"] for r in sample_rows)
        counts.append([count["procvqa_a"], count["procvqa_b"], count["procvqa_c"]])
        finished_rows = [
            r for r in sample_rows if r["family"] == "procvqa_c" and r["state"] == "finished"
        ]
        assert len(finished_rows) == 10
        pictures += [len(r["frames"]) for r in sample_rows if r["family"] != "procvqa_a"]
    mean = np.mean(counts, axis=0)
    error = np.std(counts, axis=0) / np.sqrt(len(counts))
    assert (np.abs(mean - [2, 178, 234]) < 4 * np.maximum(error, 0.1) + 1).all(), mean
    assert abs(np.mean(pictures) - 8.0) < 0.2


def test_the_published_windows_are_single_frames_or_rows_of_them():
    late = [
        r["frames"]
        for r in procvqa_rows(episode(0, 10.0, 60.0), config=PUBLISHED)
        if r["family"] != "procvqa_a"
    ]
    late = [f for f in late if f[-1] > 20]
    assert all(f == list(range(f[0], f[-1] + 1)) for f in late)
    assert {len(f) for f in late} == {1, *range(5, 18)}
    assert 0.2 < sum(len(f) == 1 for f in late) / len(late) < 0.4


@given(
    st.integers(0, 500),
    st.sampled_from([1.0, 2.0, 10.0, 29.97, 60.0]),
    st.integers(1, 9),
    st.floats(0.01, 3),
)
def test_no_window_shows_a_frame_twice(frame, fps, count, step_s):
    frames = window(frame, fps, SamplesConfig(window_frames=count, window_step_s=step_s))
    assert frames == sorted(set(frames))
    assert frames[-1] == frame
    assert frames[0] >= 0
    assert len(frames) <= count


def test_the_annotators_words_are_the_reason_where_they_are_at_hand():
    e = replace(
        episode(), reasons={195: "The cup stands in the\ncupboard <image>.", 100: "Too early."}
    )
    assert progress_answer(e, 199).startswith(
        "No action remains. The cup stands in the cupboard image.\n"
    )
    assert "All of the task" in progress_answer(e, 185)


NA = "n/a"

PUBLISHED_REPLIES = table("progresslm_replies")


@pytest.mark.parametrize(("reply", "ref", "score"), PUBLISHED_REPLIES)
def test_replies_are_read_as_published(reply, ref, score):
    read = parse_reply(reply, "published")
    assert (NA if read.ref_is_na else read.ref) == ref
    assert (NA if read.score_is_na else read.score) == score


NOTHINK = table("progresslm_answers")


@pytest.mark.parametrize(("answer", "expected"), NOTHINK)
def test_answers_without_reasoning_are_read_as_published(answer, expected):
    read = parse_answer(answer, "published")
    assert (NA if read.is_na else read.score) == expected


def test_scores_and_references_of_files_are_read_as_published():
    values = table("progresslm_written")
    for written, score in values["scores"]:
        assert written_score(written) == score, written
    for written, ref in values["references"]:
        assert written_ref(written) == ref, written


GOOD = "<ref_think>a</ref_think>\n<ref>3</ref>\n<score_think>b</score_think>\n<score>42%</score>"


def test_the_strict_way_reads_four_tags_in_order_and_a_refusal_in_three():
    strict = parse_reply(GOOD)
    assert (strict.ref, strict.score, strict.ref_think, strict.score_think) == (3, 0.42, "a", "b")
    assert strict.format_ok
    assert strict == parse_reply(GOOD, "published")
    read = parse_reply(
        "<ref_think>no</ref_think><ref>N/A</ref><score_think>n/a</score_think><score>na</score>"
    )
    assert (read.ref, read.score) == (None, None)
    assert (read.ref_is_na, read.score_is_na, read.format_ok) == (True, True, True)
    for reply in (
        f"Sure. {GOOD}",
        f"{GOOD} Done.",
        GOOD.replace("<ref>3</ref>\n", "") + "<ref>3</ref>",
        GOOD.replace("</ref_think>", ""),
        GOOD.upper(),
        GOOD.replace(">b<", "><score>9%</score><"),
    ):
        assert not parse_reply(reply).format_ok, reply
    twice = parse_reply("<ref>1</ref><ref>3</ref><score>10%</score><score>90%</score>")
    assert (twice.ref, twice.score, twice.score_is_na) == (None, None, False)
