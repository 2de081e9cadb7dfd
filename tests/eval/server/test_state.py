"""The robot's state over the wire, for a model that was trained on it."""

from pathlib import Path

import numpy as np
import pytest

from eval.reward.open import open_checkpoint
from eval.reward.scorer import TOLERANCE
from eval.server.client import RewardClient, RewardServerError
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene
from tests.kits.reward_server_kit import running

FPS = 5.0
FRAMES = [scene(TASKS[0], k / 5) for k in range(6)]
STATES = [np.array([k / 5, 1 - k / 5]) for k in range(6)]


def test_states_are_those_of_the_core_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    scorer = open_checkpoint(make_checkpoint(tmp_path / "m", states=(2,)))
    stream = scorer.stream(TASKS[0], FPS)
    moments = [stream.append({"camera": rgb}, state=state) for rgb, state in zip(FRAMES, STATES, strict=True)]
    known = [r.progress for r in scorer.score([m for m in moments if m is not None])]
    with running(scorer) as app, RewardClient(app.state.url) as client:
        with client.session(TASKS[0], fps=FPS) as session:
            rows = [session.append(FRAMES[0], state=STATES[0])]
            rows += session.append_all(FRAMES[1:], states=STATES[1:])
        assert [r.progress for r in rows] == pytest.approx(known, abs=TOLERANCE)
        with client.session(TASKS[0], fps=FPS) as session:
            alone = [session.append(rgb).progress for rgb in FRAMES]
            assert alone != pytest.approx(known, abs=1e-4)
            for wrong, why in (([1.0] * 5, "not of 5"), ([np.nan, 0.0], "finite")):
                with pytest.raises(RewardServerError, match=why):
                    session.append(FRAMES[0], state=wrong)
            with pytest.raises(RewardServerError, match="not as many for each of 2 moments"):
                session.append_all(FRAMES[:2], states=[[1.0, 2.0], [1.0]])
            assert session.frames == 6
    blind = open_checkpoint(make_checkpoint(tmp_path / "n"))
    with running(blind) as app, RewardClient(app.state.url) as client:
        session = client.session(TASKS[0], fps=FPS)
        with pytest.raises(RewardServerError, match="leave the state out"):
            session.append(FRAMES[0], state=STATES[0])
