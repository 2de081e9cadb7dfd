"""Question-answer samples: seeded, equal in number and time at any frame rate, and true to their labels."""

import re
from dataclasses import replace

import numpy as np

from annotate.samples import samples_stage
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.procvqa import progress_answer
from tests.kits.labelled import episode

CONFIG = SamplesConfig()
NO_PROGRESSLM = {f"{f}_per_episode": 0 for f in ("text_demo", "visual_demo", "cross_view", "unanswerable")}
PUBLISHED = SamplesConfig(profile="procvlm", **NO_PROGRESSLM)
TAG = re.compile(r"<progress>(\d+\.\d\d)%</progress>")


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    """The ProcVQA samples."""
    found = samples_stage(episodes, config.model_copy(update=NO_PROGRESSLM)).to_pylist()
    assert all(r["family"].startswith("procvqa") for r in found)
    return found


def family(found: list[dict], name: str) -> list[dict]:
    return [r for r in found if r["family"] == name]


# Seeds


# Quota and time


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


# What they say


def test_the_annotators_words_are_the_reason_where_they_are_at_hand():
    e = replace(episode(), reasons={195: "The cup stands in the\ncupboard <image>.", 100: "Too early."})
    assert progress_answer(e, 199).startswith("No action remains. The cup stands in the cupboard image.\n")
    assert "All of the task" in progress_answer(e, 185)


# Labels that are not sure, or have no names


def unnamed(e: LabelledEpisode) -> LabelledEpisode:
    return replace(e, named=False)
