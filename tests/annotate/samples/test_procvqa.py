"""Question-answer samples: seeded, equal in number and time at any frame rate, and true to their labels."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annotate.config import SamplesConfig
from annotate.samples import samples_stage
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.procvqa import progress_answer, window
from tests.kits.labelled import episode, relabelled

CONFIG = SamplesConfig()
NO_PROGRESSLM = {
    f"{f}_per_episode": 0 for f in ("text_demo", "visual_demo", "cross_view", "unanswerable")
}
PUBLISHED = SamplesConfig(profile="procvlm", **NO_PROGRESSLM)


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    """The ProcVQA samples."""
    sample_rows = samples_stage(episodes, config.model_copy(update=NO_PROGRESSLM)).to_pylist()
    assert all(r["family"].startswith("procvqa") for r in sample_rows)
    return sample_rows


def by_id(sample_rows: list[dict]) -> dict[str, dict]:
    return {r["sample_id"]: r for r in sample_rows}


# Seeds


def test_samples_do_not_depend_on_the_order_of_episodes():
    episodes = [episode(i) for i in range(5)]
    forward = rows(*episodes)
    backward = rows(*reversed(episodes))
    alone = list(chain.from_iterable(map(rows, episodes)))
    assert by_id(forward) == by_id(backward) == by_id(alone)
    assert len(by_id(forward)) == len(forward)


def test_samples_differ_with_the_seed_and_between_episodes():
    def moments(sample_rows: list[dict]) -> list[int]:
        return [r["frames"][-1] for r in sample_rows if r["family"] == "procvqa_c"]

    first = moments(rows(episode()))
    assert first == moments(rows(episode()))
    assert first != moments(rows(episode(), config=SamplesConfig(seed=1)))
    assert first != moments(rows(episode(1)))
    of_other_dataset = replace(episode().episode, dataset="e")
    assert first != moments(rows(replace(episode(), episode=of_other_dataset)))


# Quota and time


def test_the_published_profile_has_the_published_counts():
    """300 frames of which 20 are done: c 234, b 177, a 2 on average (specification, section 5.4)."""
    counts = []
    pictures = []
    for index in range(60):
        e = episode(index, 10.0, 30.0)
        segments = [*e.label.segments[:3], replace(e.label.segments[3], start_frame=281)]
        segments[2] = replace(segments[2], end_frame=281)
        curve = np.interp(np.arange(300), [0, 280, 299], [0, 1, 1]).astype(np.float32)
        e = relabelled(e, segments=segments, progress=curve)
        assert (e.label.progress >= 1).sum() == 20
        sample_rows = rows(e, config=PUBLISHED)
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
    assert abs(np.mean(pictures) - 8.0) < 0.2  # fewer than 5 to 17 on the first frames


def test_the_published_windows_are_single_frames_or_rows_of_them():
    late = [
        r["frames"]
        for r in rows(episode(0, 10.0, 60.0), config=PUBLISHED)
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
def test_no_window_shows_a_frame_twice(now: int, fps: float, count: int, step_s: float):
    frames = window(now, fps, SamplesConfig(window_frames=count, window_step_s=step_s))
    assert frames == sorted(set(frames))
    assert frames[-1] == now
    assert frames[0] >= 0
    assert len(frames) <= count


# What they say


def test_the_annotators_words_are_the_reason_where_they_are_at_hand():
    e = replace(
        episode(), reasons={195: "The cup stands in the\ncupboard <image>.", 100: "Too early."}
    )
    assert progress_answer(e, 199).startswith(
        "No action remains. The cup stands in the cupboard image.\n"
    )
    assert "All of the task" in progress_answer(e, 185)
