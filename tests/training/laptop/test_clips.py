"""What training shows: windows as the release has them, and negatives at their rates."""

from dataclasses import replace

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.procvqa import samples
from tests.kits.labelled import episode
from tests.kits.laptop_kit import TASKS, make_episode
from training.laptop.clips import ClipSource
from training.negatives.config import NegativesConfig

RUNS = (make_episode(TASKS[0]), make_episode(TASKS[1]))


def source(**rates: float) -> ClipSource:
    return ClipSource(RUNS, 4, NegativesConfig(**rates), seed=1)


def test_nothing_that_is_shown_tells_how_long_a_run_will_last():
    """Of 9 and of 45 seconds: shards hold a few frames of a long run, and windows of nearest ones showed that. The
    numbers of a picture say its frame, so what a model can know of a window's times is how far these lie apart."""
    apart, asked = {}, {}
    for seconds in (8.6, 44.9):
        rows = [r for r in samples(episode(0, 10.0, seconds), SamplesConfig()) if r["family"] != "procvqa_a"]
        asked[seconds] = {r["frames"][-1]: (r["frames"], r["question"]) for r in rows if r["family"] == "procvqa_c"}
        frames = np.unique([f for r in rows for f in r["frames"]])
        numbers = np.broadcast_to(frames[None, :, None], (1, len(frames), 2)).astype(np.float16)
        run = replace(RUNS[0], numbers=numbers, frames=frames, label=frames / frames[-1], step=4.0)
        drawn = ClipSource([run], 4, NegativesConfig(), seed=1).draw(300)[0][:, 1:, 0]
        apart[seconds] = set(map(tuple, np.diff(drawn[drawn[:, -1] >= 12]).tolist()))
    assert apart[8.6] == apart[44.9] == {(4.0, 4.0, 4.0)}
    same = asked[8.6].keys() & asked[44.9].keys()
    assert same, "moments that were drawn of both"
    assert all(asked[8.6][now] == asked[44.9][now] for now in same), "what a language model is shown, word for word"


def test_another_task_is_worth_nothing():
    _, tasks, label = source(other_task=1).draw(50)
    assert (label == 0).all()
    assert set(tasks) == {e.task for e in RUNS}
