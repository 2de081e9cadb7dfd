"""A model on a robot that it never saw says `unsure`, whoever asks and however."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from eval.reward.open import open_checkpoint
from eval.reward.scorer import UNSEEN, Scorer
from eval.rl.local import LocalSession
from eval.rl.wrapper import ProgressReward
from eval.server.client import RewardClient
from pipeline.episode_rewards import score_episodes
from tests.eval.server.test_chat import content
from tests.kits.cli_kit import called
from tests.kits.laptop_kit import TASKS, make_knowing_checkpoint, scene
from tests.kits.made_corpus import Made
from tests.kits.reward_kit import write_video
from tests.kits.reward_server_kit import Playing, running
from warehouse.lake import open_lake
from warehouse.lake.episodes import usable_episodes

SEEN = [scene(TASKS[0], k / 9) for k in range(10)]
NEVER_SEEN = [
    np.random.default_rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8) for k in range(10)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_knowing_checkpoint(tmp_path_factory.mktemp("laptop") / "bars")


@pytest.fixture(scope="module")
def scorer(checkpoint: Path) -> Scorer:
    return open_checkpoint(checkpoint)


def test_a_mean_with_a_camera_that_is_unsure_is_unsure(scorer: Scorer):
    def unsure(**pictures: list[np.ndarray]) -> str | None:
        stream = scorer.stream(TASKS[0], 5.0, cameras=tuple(pictures))
        moment = stream.append({camera: frames[0] for camera, frames in pictures.items()})
        assert moment is not None
        return scorer.score([moment])[0].unsure

    assert unsure(front=SEEN) is None
    assert unsure(front=SEEN, wrist=NEVER_SEEN) == UNSEEN


def test_every_way_through_the_server_says_so(scorer: Scorer, tmp_path: Path):
    videos = {
        pictures is SEEN: write_video(tmp_path / f"{k}.mp4", pictures)
        for k, pictures in enumerate((SEEN, NEVER_SEEN))
    }
    with running(scorer) as app, RewardClient(app.state.url) as client:
        for frames, expected in ((SEEN, None), (NEVER_SEEN, UNSEEN)):
            with client.session(TASKS[0], fps=5.0) as session:
                assert session.append(frames[0]).unsure == expected
            assert {row.unsure for row in client.reward_frames(frames, TASKS[0], 5.0)} == {expected}
            if expected:  # lossy video makes other pictures of the bars, too
                rows = client.reward_video(videos[frames is SEEN], TASKS[0], 5.0)
                assert {row.unsure for row in rows} == {expected}


@pytest.mark.parametrize("reply", ["reward", "trend", "digit"])
def test_the_openai_api_says_so(scorer: Scorer, reply: str):
    def asked(frames: list[np.ndarray]) -> Any:
        messages: Any = [{"role": "user", "content": content(frames[:2], TASKS[0])}]
        with OpenAI(base_url=f"{app.state.url}/v1", api_key="none", max_retries=0) as client:
            body = {"proccorpus": {"reply": reply}}
            return client.chat.completions.create(model="test", messages=messages, extra_body=body)

    with running(scorer) as app:
        for frames, expected in ((SEEN, None), (NEVER_SEEN, UNSEEN)):
            answer = asked(frames)
            assert answer.proccorpus["unsure"] == expected
            if reply != "digit":  # whose words are a digit alone
                assert json.loads(answer.choices[0].message.content)["unsure"] == expected


def test_an_agents_environment_is_told(scorer: Scorer):
    for frames, expected in ((SEEN, None), (NEVER_SEEN, UNSEEN)):
        observations = [{"pixels": {"top": frame}} for frame in frames]
        env = ProgressReward(Playing(observations), lambda: LocalSession(scorer, TASKS[0], 5.0))
        env.reset()
        assert env.step(0)[4]["unsure"] == expected


def test_the_command_and_a_corpus_say_so(
    checkpoint: Path, made: Made, own: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = write_video(tmp_path / "strange.mp4", NEVER_SEEN)
    out = tmp_path / "rows.jsonl"
    words = ("--task", TASKS[0], "--model", checkpoint, "--workspace", made.space.root)
    result = called(capsys, "reward", video, "--out", out, *words)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["unsure"] for row in rows} == {UNSEEN}
    assert f"note: {len(rows)} of {len(rows)} answers are unsure: {UNSEEN}" in result.err

    lake = open_lake(own.space)
    episodes = usable_episodes(lake.con, "chunk = 0")
    scored = score_episodes(lake, open_checkpoint(checkpoint), "bars", episodes)
    assert scored.unsure == scored.moments > 0
    settings = ("--set", f"from_model={checkpoint}", "--allow-licence", "unknown")
    export = ("export", "rabc", "--dataset", "tiny", *settings)
    result = called(capsys, *export, "--out", tmp_path / "rabc", "--workspace", own.space.root)
    assert f"answers are unsure: {UNSEEN}" in result.err
