"""Rewards for agents: shaping, the Gymnasium wrapper, RLinf's subprocess."""

import base64
import io
import re
import subprocess
import sys
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from core.errors import UserError
from core.paths import ROOT
from eval.reward.open import open_checkpoint
from eval.reward.scorer import TOLERANCE
from eval.rl.local import LocalSession
from eval.rl.rlinf import Adapter, read_message, task_of, write_message
from eval.rl.shaping import Shaper, Shaping
from eval.rl.wrapper import ProgressReward
from eval.server.client import RewardClient
from eval.server.protocol import RewardRow
from tests.kits.patience import PATIENCE_S
from tests.kits.reward_kit import make_checkpoint
from tests.kits.reward_server_kit import (
    FPS,
    POISON,
    TASK,
    Pixels,
    Playing,
    offline,
    pictures,
    png,
    running,
)


def rewards(
    shaping: Shaping, progress: list[float | None], terminated: bool = False
) -> list[float]:
    shaper = Shaper(shaping)
    shaper.reset(progress[0])
    last = len(progress) - 1
    return [shaper.step(p, terminated and k == last) for k, p in enumerate(progress) if k]


def test_differences_are_clipped_and_gaps_are_not_zeros():
    assert rewards(Shaping(), [0.5, 0.6, 0.55, 1.0]) == pytest.approx([0.1, -0.05, 0.2])
    assert rewards(Shaping(clip=1), [0.5, None, None, 0.8, 0.7]) == pytest.approx([0, 0, 0.3, -0.1])
    # The first is no gain from 0
    assert rewards(Shaping(clip=1), [None, 0.4, 0.5]) == pytest.approx([0, 0.1])
    smooth = Shaping("ema", clip=1, smoothing=0.6)
    assert rewards(smooth, [0.0, 1.0, 1.0]) == pytest.approx([0.6, 0.24])
    potential = Shaping("potential", gamma=0.9)
    assert rewards(potential, [0.5, 0.6, 0.8]) == pytest.approx([0.04, 0.12])
    assert rewards(potential, [0.5, 0.6, 0.8], terminated=True) == pytest.approx([0.04, -0.6])
    for wrong in ({"clip": 0}, {"smoothing": 0}, {"gamma": 1.1}):
        with pytest.raises(ValueError, match="above 0"):
            Shaping(**wrong)


def painted(frames: list[np.ndarray], **options: Any) -> Playing:
    return Playing([{"pixels": {"top": frame}} for frame in frames], **options)


def episode(env: gym.Env) -> tuple[list[float], list[dict]]:
    _, info = env.reset(seed=0)
    gained = []
    infos = [info]
    over = False
    while not over:
        _, reward, terminated, truncated, info = env.step(0)
        gained.append(float(reward))
        infos.append(info)
        over = terminated or truncated
    return gained, infos


def test_the_wrapper_adds_the_models_progress_here_and_by_network():
    frames = pictures(6)
    scorer = Pixels()
    progress = [r.progress for r in offline(scorer, frames)]
    shaping = Shaping("potential", gamma=0.9)
    expected = [0.5 * r + 0.1 for r in rewards(shaping, progress, terminated=True)]

    def wrapped(open_session: Any, **options: Any) -> ProgressReward:
        return ProgressReward(
            painted(frames), open_session, shaping, weight=0.5, env_weight=0.1, **options
        )

    def local() -> LocalSession:
        return LocalSession(scorer, TASK, FPS)

    env = wrapped(local)
    gained, infos = episode(env)
    assert gained == pytest.approx(expected)
    assert [i["progress"] for i in infos] == progress
    assert infos[-1]["own"]
    assert (infos[-1]["env_reward"], infos[-1]["done_probability"]) == (1.0, None)
    assert episode(env)[0] == gained
    with running(scorer) as app, RewardClient(app.state.url) as client:
        served = wrapped(lambda: client.session(TASK, ("top",), FPS), pixels={"top": "pixels/top"})
        assert episode(served)[0] == pytest.approx(expected)
        assert len(app.state.service.sessions) == 1
        served.close()
        assert len(app.state.service.sessions) == 0


def test_steps_without_a_number_give_nothing_and_say_why():
    frames = pictures(8)
    frames[4] = np.full_like(frames[0], POISON)

    class Breaking(LocalSession):
        def append(self, frame: Any) -> Any:
            try:
                return super().append(frame)
            except RuntimeError:
                return RewardRow(
                    frame_index=0, timestamp_s=0, source="head", failure="it broke", latency_s=0
                )

    env = ProgressReward(
        painted(frames, ends=False), lambda: Breaking(Pixels(), TASK, FPS), Shaping(clip=1), every=2
    )
    gained, infos = episode(env)
    frames_seen = [frames[k] for k in (0, 2, 6)]
    first, second = (r.progress for r in offline(Pixels(), frames_seen[:2]))
    assert [infos[k].get("progress_failure") for k in (1, 2, 4)] == [
        "not scored at this step",
        None,
        "it broke",
    ]
    assert gained[:5] == pytest.approx([0, second - first, 0, 0, 0])
    assert gained[5] == pytest.approx(infos[6]["progress"] - second)


PROMPT = (
    f'Given the recent observation and the task "{TASK}", first infer the remaining atomic actions.'
)


def item(frames: list[np.ndarray]) -> dict[str, Any]:
    images = [
        {"__rlinf_image__": {"format": "PNG", "data": base64.b64encode(png(f)).decode()}}
        for f in frames
    ]
    return {"image": images, "conversations": [{"from": "human", "value": PROMPT}]}


def test_requests_of_rlinf_are_answered_or_refused(tmp_path):
    model = open_checkpoint(make_checkpoint(tmp_path / "tiny"))
    runs = [pictures(7, 1), pictures(3, 2), pictures(7, 1)[:5]]
    request = {"op": "batch_infer", "generate_kwargs": {"max_new_tokens": 128}}
    source = io.BytesIO()
    write_message(source, {"id": 1, **request, "batch_items": [item(r) for r in runs]})
    write_message(source, {"id": 2, **request, "batch_items": [{"image": []}]})
    write_message(source, {"id": 3, "op": "dance"})
    write_message(source, {"id": 4, "op": "shutdown"})
    source.seek(0)
    sink = io.BytesIO()
    Adapter(model, 4.0).serve(source, sink)
    sink.seek(0)
    ready, answer, refused, unknown, ended = iter(lambda: read_message(sink) or {}, {})
    assert ready == {"type": "ready", "ok": True}
    offline_progress = [offline(model, r)[-1].progress for r in runs]
    assert (answer["id"], answer["ok"]) == (1, True)
    outputs = [re.fullmatch(r"<progress>(.*)%</progress>", o) for o in answer["outputs"]]
    told_progress = [float(output[1]) / 100 for output in outputs]
    assert told_progress == pytest.approx(offline_progress, abs=TOLERANCE + 0.00005)
    assert (refused["id"], refused["ok"], "names no task" in refused["error"]) == (2, False, True)
    assert "Traceback" in refused["traceback"]
    assert unknown["error"] == "UserError: no such op: 'dance'"
    assert ended == {"id": 4, "ok": True, "shutdown": True}


@pytest.mark.slow
def test_a_real_subprocess_speaks_rlinfs_protocol(tmp_path):
    folder = make_checkpoint(tmp_path / "tiny")
    script = ROOT / "eval" / "rl" / "rlinf.py"
    arguments = ("--model-path", folder, "--backend", "value_head", "--device-map", "cuda:0")
    sent = io.BytesIO()
    write_message(sent, {"id": 1, "op": "batch_infer", "batch_items": [item(pictures(7, 1))]})
    write_message(sent, {"id": 2, "op": "shutdown"})
    line = [*map(str, (sys.executable, "-u", script, *arguments))]
    process = subprocess.run(
        line, cwd=tmp_path, input=sent.getvalue(), capture_output=True, timeout=PATIENCE_S
    )
    answers = io.BytesIO(process.stdout)
    assert read_message(answers) == {"type": "ready", "ok": True}
    assert [(read_message(answers) or {})["ok"] for _ in range(2)] == [True, True]
    assert read_message(answers) is None
    assert process.returncode == 0
    assert b"left out: --backend value_head --device-map cuda:0" in process.stderr


def test_items_are_read_and_overlapping_windows_share_their_pictures():
    scorer = Pixels()
    adapter = Adapter(scorer, FPS)
    frames = pictures(6)
    [first_output] = adapter.outputs([item(frames[:5])])
    [second_output] = adapter.outputs([item(frames[1:6])])
    first, second = item(frames)["image"][:2]
    picture = adapter._picture(first, "a picture")
    assert picture is adapter._picture(first, "the same") is not None
    assert picture is not adapter._picture(second, "another")
    offline_progress = offline(scorer, frames[:5])[-1].progress
    assert first_output == f"<progress>{100 * offline_progress:.2f}%</progress>"
    assert second_output != first_output
    both = [dict(zip(("exo", "wrist"), pictures(2, s), strict=True)) for s in range(5)]
    flat = list(chain.from_iterable(moment.values() for moment in both))
    (output,) = Adapter(scorer, FPS, ("exo", "wrist")).outputs([item(flat)])
    offline_progress = offline(scorer, both, cameras=("exo", "wrist"))[-1].progress
    assert output == f"<progress>{100 * offline_progress:.2f}%</progress>"
    for wrong, message in (
        ({"image": []}, "names no task"),
        ({**item(frames), "image": []}, "has 0 images"),
        ({**item(frames), "image": ["x"]}, "is no __rlinf_image__"),
    ):
        with pytest.raises(UserError, match=message):
            adapter.outputs([wrong])
    assert task_of({"task": "Lift it."}, 0) == "Lift it."
    assert task_of(item(frames), 0) == TASK
