"""Which runs of a task the model is asked about (labels of the others: tests/e2e)."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import annotate.vlm.few_runs as few_runs
from annotate.config import MotionConfig, TransferConfig, VlmConfig
from annotate.motion.observe import Signals
from annotate.transfer import Transferred
from core.domain.label import STEP, Label, Segment

N = 20


def answer(*, is_doubtful: bool = False) -> Label:
    segments = [Segment("reach", 0, 9, STEP, True, 0), Segment("put", 9, N, STEP, True, 1)]
    return Label(segments, 2, ("reach", "put"), task="t", needs_review=is_doubtful)


def asked(
    monkeypatch: pytest.MonkeyPatch, spreads: dict[int, float], doubtful: Sequence[int] = ()
) -> list[list[int]]:
    """The rounds of questions about seven runs, most telling in the order of their numbers."""
    runs = [Signals(10.0, np.ones(N), None, task="t", episode_index=k) for k in range(7)]

    def followed(episodes: Sequence[Signals], *_: object) -> list[Transferred]:
        # A label that nobody is sure enough of to follow: here only which runs are asked about matters
        label = replace(answer(), confidence=0.0)
        return [
            Transferred(label, None, spread=spreads.get(e.episode_index, 0.01)) for e in episodes
        ]

    monkeypatch.setattr(
        few_runs, "most_telling", lambda episodes, motion: [e.episode_index for e in episodes]
    )
    monkeypatch.setattr(few_runs, "annotate", followed)
    rounds = []

    async def ask(runs: Sequence[int]) -> dict[int, Label]:
        rounds.append(sorted(runs))
        return {k: answer(is_doubtful=k in doubtful) for k in runs}

    task = few_runs.label_task(
        runs,
        ask,
        lambda k, label: np.linspace(0, 1, N),
        VlmConfig(),
        TransferConfig(),
        MotionConfig(),
    )
    asyncio.run(task)
    return rounds


def test_the_last_run_asked_about_is_that_of_which_the_others_say_the_least_alike(
    monkeypatch: pytest.MonkeyPatch,
):
    assert asked(monkeypatch, {5: 0.2, 3: 0.1})[:2] == [[0, 1], [5]]
    assert asked(monkeypatch, {})[:2] == [[0, 1], [2]]
    # One doubtful answer is made up for by the others; for two there is one more, again the least alike
    assert asked(monkeypatch, {5: 0.2, 3: 0.1}, doubtful=(1,))[:3] == [[0, 1], [5], [2, 3, 4, 6]]
    assert asked(monkeypatch, {5: 0.2, 3: 0.1}, doubtful=(1, 5))[:4] == [
        [0, 1],
        [5],
        [3],
        [2, 4, 6],
    ]
    assert asked(monkeypatch, {5: 0.2, 3: 0.1}, doubtful=(0, 1))[:3] == [[0, 1], [5], [3]]
