"""Rewards: windows as in training, and one scorer whatever is scored together."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotate.config import SamplesConfig
from annotate.samples.procvqa import window as trained_window
from core.errors import UserError
from eval.reward.open import (
    BaselineScorer,
    ModelScorer,
    ScorerConfig,
    ScorerOptions,
    open_checkpoint,
    open_scorer,
    read_words,
)
from eval.reward.scorer import TOLERANCE, UNSEEN, Reward, Scorer, Success, calibrate
from eval.reward.stream import LAST_PICTURE, Moment, RewardError, Stream, StreamPicture, Window
from eval.rl.local import LocalSession
from eval.rl.wrapper import ProgressReward
from eval.runners.local import ModelRunner, TextRunner, open_runner
from eval.runners.prompt import ModelReply, PictureLimits, Prompt, Sampling
from eval.server.client import RewardClient
from pipeline.episode_rewards import score_episodes
from tests.eval.server.test_chat import content
from tests.kits.bench_kit import Scripted
from tests.kits.cli_kit import called
from tests.kits.laptop_kit import TASKS, make_knowing_checkpoint, scene
from tests.kits.reward_kit import FPS, TASK, WINDOW, bar, bars, make_checkpoint, write_video
from tests.kits.reward_server_kit import Playing, openai_client, running
from tests.kits.training_kit import FAMILIES
from tests.kits.vlm_standin import StandIn, serving
from training.card import card_text
from training.pictures import decode_picture
from training.recipe import HeadConfig
from warehouse.lake import open_lake
from warehouse.lake.stored import usable_episodes

FOUR = Window(4, 0.4)
SHORT = Sampling(max_tokens=6)


@pytest.fixture(scope="module", params=FAMILIES)
def scorer(request, tmp_path_factory) -> ModelScorer:
    return open_checkpoint(
        make_checkpoint(tmp_path_factory.mktemp("model") / request.param, request.param)
    )


def run(stream: Stream, pictures: list[np.ndarray]) -> Iterator[Moment]:
    """All that is to be scored; frames come only where they are wanted."""
    (camera,) = stream.cameras
    for rgb in pictures:
        if moment := stream.append({camera: rgb} if stream.is_wanted else None):
            yield moment


def progress(rewards: list[Reward]) -> np.ndarray:
    return np.array([r.progress for r in rewards], np.float64)


def test_windows_are_those_of_training_and_repeat_nothing():
    for fps in (4.0, 10.0, 24.0):
        for frame_now in (0, 1, 2, 5, 40):
            assert FOUR.of(frame_now, fps) == trained_window(
                frame_now, fps, SamplesConfig(window_frames=4, window_step_s=0.4)
            )
            assert len(set(FOUR.of(frame_now, fps))) == min(frame_now + 1, 4)
    assert FOUR.of(40, 10.0) == [28, 32, 36, 40]
    assert FOUR.of(6, 10.0) == [0, 2, 4, 6]
    assert Window(8, None).of(3, 30.0) == [0, 1, 2, 3]
    assert Window(8, None).of(20, 30.0) == list(range(13, 21))
    assert Window.of_card({"window": WINDOW}) == FOUR
    assert Window.of_card({"window": WINDOW | {"profile": "procvlm"}}) == Window(8, None)
    assert Window.of_card({}) is None
    with pytest.raises(RewardError, match=r"0\.4 s apart.*at least 2\.5"):
        FOUR.check(2.0)
    with pytest.raises(RewardError, match="a window has"):
        Window(0, None)


def test_a_stream_refuses_what_it_cannot_use():
    fields: dict[str, Any] = {"task": "go", "window": FOUR, "fps": 10.0}
    wrong_fields: list[dict[str, Any]] = [
        {"task": " "}, {"fps": 0.0}, {"score_fps": float("nan")}, {"cameras": ()}, {"cameras": ("a", "a")},
    ]  # fmt: skip
    for field in wrong_fields:
        with pytest.raises(RewardError):
            Stream(**(fields | field))
    stream = Stream("go", FOUR, 10.0, cameras=("a", "b"))
    good = {"a": bar(0), "b": bar(0)}
    for wrong in (
        {"a": bar(0)},
        good | {"c": bar(0)},
        good | {"b": bar(0)[:, :, 0]},
        good | {"b": bar(0) / 255},
        None,
    ):
        with pytest.raises(RewardError):
            stream.append(wrong)
    assert stream.appended == 0
    assert stream.append(good) is not None
    assert stream.append(good, score=False) is None
    assert stream.append(good, 7.5).timestamp_s == 7.5


def test_another_window_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    with pytest.raises(RewardError, match=r"of 4 pictures, 0\.4 s apart, not of 8"):
        open_checkpoint(folder, window=Window(8, None))
    unknown = make_checkpoint(tmp_path / "u", window=None)
    with pytest.raises(RewardError, match="does not say on which window"):
        open_checkpoint(unknown)
    assert open_checkpoint(unknown, window=FOUR).window == FOUR
    with pytest.raises(RewardError, match="on no steps: leave the steps out"):
        open_checkpoint(folder).stream(TASK, FPS, ("push", "stop"))
    demonstrated = make_checkpoint(
        tmp_path / "d", recipe={"data": {"families": {"progresslm_text": 1.0}}}
    )
    with pytest.raises(RewardError, match="give the task's steps"):
        open_checkpoint(demonstrated).stream(TASK, FPS)
    assert open_checkpoint(demonstrated).stream(TASK, FPS, ("push", "stop")).window == LAST_PICTURE


def test_numbers_are_read_from_words():
    def read(text: str, steps: bool = False) -> tuple[float | None, str | None]:
        reward = read_words(text, steps)
        assert (reward.progress is None) == (reward.failure is not None)
        return reward.progress, reward.reasoning

    assert read("1. lift it\n<progress>45.50%</progress>") == (0.455, "1. lift it")
    assert read("no idea") == (None, "no idea")
    assert read("<progress>40%</progress> or <progress>50%</progress>")[0] is None
    assert read("<progress>140%</progress>")[0] is None
    four = "<ref_think>a</ref_think><ref>1</ref><score_think>b</score_think><score>33%</score>"
    assert read(four, steps=True) == (0.33, "a\nb")
    assert read("75%", steps=True) == (0.75, None)
    assert "n/a" in read_words("n/a", True).failure
    assert read("perhaps half", steps=True)[0] is None


class Says(Scripted):
    """Answers in another order."""

    def answer(self, prompts: Any) -> Iterator[ModelReply]:
        return super().answer(prompts[::-1])


def by_the_bar(prompt: Prompt) -> ModelReply:
    share = 100 * float((decode_picture(prompt.pictures[-1].read(), 64)[:, :, 2] > 150).mean())
    if share > 90:
        reply_text = "<progress>oops</progress>"
    else:
        reply_text = f"<progress>{share:.2f}%</progress>"
    if share < 10:
        return ModelReply(prompt.key, error="gone")
    return ModelReply(prompt.key, text=reply_text)


def test_a_served_model_gets_equal_bytes_for_equal_pictures():
    talking_runner = Says(by_the_bar)
    scorer = ModelScorer(talking_runner, FOUR)
    moments = list(run(scorer.stream(TASK, FPS, score_fps=2.5), bars(25)))
    scored_rewards = scorer.score(moments)
    shares = [float((m.views["camera"][-1].rgb[:, :, 2] > 150).mean()) for m in moments]
    for reward, share in zip(scored_rewards, shares, strict=True):
        if 0.1 <= share <= 0.9:
            assert reward.progress == pytest.approx(share, abs=1e-4)
        else:
            assert reward.progress is None
            assert reward.failure == "gone" or "oops" in reward.failure
    assert {r.failure is None for r in scored_rewards} == {True, False}
    sent = [p.data for p in chain.from_iterable(map(attrgetter("pictures"), talking_runner.asked))]
    assert len(sent) == sum(len(m.frames) for m in moments)
    assert len(set(map(id, sent))) == len(set(chain.from_iterable(m.frames for m in moments)))
    assert all(p.text.count("<image>") == len(p.pictures) for p in talking_runner.asked)


def test_a_server_is_asked_by_an_endpoint_once(tmp_path):
    with serving(StandIn()) as server:
        options = ScorerOptions(
            model="stand-in", endpoint=(server.url,), window_frames=4, window_step=0.4
        )
        config = ScorerConfig(options=options, responses=tmp_path / "responses")

        def ask() -> list[Reward]:
            with open_scorer(config) as scorer:
                steps = ("reach for the bar", "push the bar")
                stream = scorer.stream(TASK, FPS, steps, score_fps=2.5)
                return scorer.score(list(run(stream, bars(9))))

        rewards_found = ask()
        assert [r.source for r in rewards_found] == ["text"] * 3
        assert all(r.progress is not None for r in rewards_found)
        (parts,) = {
            tuple(map(itemgetter("type"), b["messages"][0]["content"])) for b in server.seen
        }
        assert parts.count("image_url") == 1
        assert "push the bar" in server.seen[0]["messages"][0]["content"][0]["text"]
        sent = len(server.received)
        assert ask() == rewards_found
        assert len(server.received) == sent
    with pytest.raises(RewardError, match="needs a model"), open_scorer(ScorerConfig()):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold": 1.0}, "need --like"),
        ({"max_calls": 3}, "need --endpoint"),
        ({"like": ("a/0",), "reasoning": True}, "need --model"),
        ({"like": ("a/0",), "answer": "head"}, "needs a checkpoint"),
    ],
)
def test_what_would_count_for_nothing_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        ScorerOptions(**options)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_words_are_the_plain_runners(family, tmp_path):
    folder = make_checkpoint(tmp_path / "words", family, head=None)
    assert open_checkpoint(folder).source == "text"
    runner = open_runner(folder, 8, sampling=SHORT)
    assert isinstance(runner, ModelRunner)
    scorer = ModelScorer(runner, FOUR, runner.card)
    moments = list(run(scorer.stream(TASK, FPS, score_fps=2.5), bars(12)))
    rewards_found = scorer.score(moments)
    plain = TextRunner(runner.model, runner.processor, SHORT, PictureLimits(), 8)
    assert ModelScorer(plain, FOUR).score(list(fresh(moments))) == rewards_found
    assert all(r.progress is None and "no single progress" in r.failure for r in rewards_found)


def test_baselines_know_the_end_or_say_so():
    pictures = bars(11)
    clock = BaselineScorer("clock")
    visual = BaselineScorer("visual")
    timed = clock.score(list(run(clock.stream(TASK, FPS, duration_s=1.0), pictures)))
    assert progress(timed) == pytest.approx(np.arange(11) / 10)
    near = visual.score(
        list(run(visual.stream(TASK, FPS, goal={"camera": pictures[-1]}), pictures))
    )
    assert progress(near) == pytest.approx(np.arange(11) / 10, abs=0.03)
    for scorer in (clock, visual):
        (lost_reward,) = scorer.score(list(run(scorer.stream(TASK, FPS), pictures[:1])))
        assert lost_reward.progress is None
        assert "needs" in lost_reward.failure
    with pytest.raises(RewardError, match="no baseline 'magic'"):
        BaselineScorer("magic")


def test_a_published_head_is_asked_where_it_is_said(tmp_path):
    folder = make_checkpoint(
        tmp_path / "m", head=HeadConfig(pooling="published"), converted_from="ProcVLM-2B"
    )
    cases: Any = (("auto", "text", "text"), ("head", "head", "head after text"))
    for answer, source, setting in cases:
        scorer = open_checkpoint(folder, answer=answer)
        assert (scorer.source, scorer.settings["answer"]) == (source, setting)
        moments = list(run(scorer.stream(TASK, FPS), bars(2)))
        assert {reward.source for reward in scorer.score(moments)} == {source}
    with pytest.raises(UserError, match="has no progress head"):
        open_checkpoint(make_checkpoint(tmp_path / "words", head=None), answer="head")


def fresh(moments: Sequence[Moment]) -> list[Moment]:
    copies = []
    for moment in moments:
        views = {}
        for camera, view in moment.views.items():
            views[camera] = tuple(StreamPicture(p.rgb) for p in view)
        copies.append(replace(moment, views=views))
    return copies


def pictures(moments: Sequence[Moment]) -> list[StreamPicture]:
    all_pictures = chain.from_iterable(moment.views["camera"] for moment in moments)
    return list({id(picture): picture for picture in all_pictures}.values())


def test_the_numbers_are_the_same_and_nothing_is_cut_twice(scorer, monkeypatch):
    first, ready = (list(run(scorer.stream(TASK, FPS), bars(12))) for _ in range(2))
    known_progress = progress(scorer.score(first)).tolist()
    for picture in pictures(ready):
        scorer.make_ready(picture)
    monkeypatch.setattr(
        "eval.runners.local.byte_patches", lambda *_: pytest.fail("a picture is cut again")
    )
    assert progress(scorer.score(ready)).tolist() == known_progress
    # What was made beforehand is thrown away once it is seen, and not made again
    assert {p.cut is None and p.seen is not None for p in pictures(ready)} == {True}
    scorer.make_ready(pictures(ready)[0])
    assert pictures(ready)[0].cut is None


def test_where_a_window_leaves_less_room_patches_are_cut_for_it(scorer, monkeypatch):
    if type(scorer.runner.processor).__name__ == "InternVLProcessor":
        pytest.skip("its pictures have one size")
    monkeypatch.setattr(scorer.runner.processor, "max_vision_tokens", 6, raising=False)
    moments = list(run(scorer.stream(TASK, FPS), bars(6)))
    fresh_moments = fresh(moments)
    for picture in pictures(fresh_moments):
        scorer.make_ready(picture)
    known_progress = progress(scorer.score(fresh(moments))).tolist()
    assert progress(scorer.score(fresh_moments)).tolist() == known_progress
    # And those that are shared by windows get the numbers of those that are not
    assert progress(scorer.score(moments)) == pytest.approx(known_progress, abs=TOLERANCE)
    assert max(len(p.seen) for p in pictures(moments)) > 1


def test_one_kind_of_moments_calibrates_nothing():
    assert calibrate(np.array([0.1, 0.9]), np.array([True, True]), "progress") is None
    assert calibrate(np.array([0.1, 0.9]), np.array([False, False]), "done") is None


class Fixed(Scorer):
    source = "head"

    def __init__(self, reward: Reward, success: Success | None) -> None:
        super().__init__(LAST_PICTURE)
        self.success = success
        self.reward = reward

    def views(self, views: object) -> list[Reward]:
        return [self.reward for _ in views]


@pytest.mark.parametrize("of", ["done", "progress"])
def test_a_scorer_says_success_as_its_card_does(of):
    raw = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    success = calibrate(raw, raw > 0.5, of, "r1", "val")
    read_success = Success.of_card(json.loads(json.dumps({"success": success.as_json()})))
    assert read_success == success
    assert (success.reached, success.unreached, success.balanced_accuracy) == (3, 3, 1.0)
    told_success = []
    for value in raw:
        numbers = {"progress": 0.5, "done": None} | {of: value}
        scorer = Fixed(Reward("head", **numbers), success)
        moment = scorer.stream("go", 10.0).append({"camera": np.zeros((2, 2, 3), np.uint8)})
        (scored_reward,) = scorer.score([moment])
        assert scored_reward.done == pytest.approx(success.probability(value))
        told_success.append(scored_reward.success)
    assert told_success == [False] * 3 + [True] * 3
    card = {"training_run": "t", "release": "r1", "snapshot": 1, "release_hash": "0" * 64, "label_runs": [],
            "recipe": {"name": "n", "model": {"path": None}}}  # fmt: skip
    assert "3 moments at the end state and 3 before it" in card_text(
        card | {"success": success.as_json()}
    )
    assert "Not calibrated" in card_text(card)


SEEN = [scene(TASKS[0], k / 9) for k in range(10)]
NEVER_SEEN = [
    np.random.default_rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8) for k in range(10)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_knowing_checkpoint(tmp_path_factory.mktemp("laptop") / "bars")


@pytest.fixture(scope="module")
def knowing_scorer(checkpoint: Path) -> Scorer:
    return open_checkpoint(checkpoint)


def test_a_mean_with_a_camera_that_is_unsure_is_unsure(knowing_scorer):
    def unsure(**pictures: list[np.ndarray]) -> str | None:
        stream = knowing_scorer.stream(TASKS[0], 5.0, cameras=tuple(pictures))
        moment = stream.append({camera: frames[0] for camera, frames in pictures.items()})
        return knowing_scorer.score([moment])[0].unsure

    assert unsure(front=SEEN) is None
    assert unsure(front=SEEN, wrist=NEVER_SEEN) == UNSEEN


@pytest.mark.parametrize(("frames", "expected"), [(SEEN, None), (NEVER_SEEN, UNSEEN)])
def test_every_way_says_so(knowing_scorer, tmp_path, frames, expected):
    task = TASKS[0]
    messages: Any = [{"role": "user", "content": content(frames[:2], task)}]
    with running(knowing_scorer) as app, RewardClient(app.state.url) as client:
        with client.session(task, fps=5.0) as session:
            unsure = [session.append(frames[0]).unsure]
        unsure += [row.unsure for row in client.reward_frames(frames, task, 5.0)]
        if expected:
            video = write_video(tmp_path / "run.mp4", frames)
            unsure += [row.unsure for row in client.reward_video(video, task, 5.0)]
        with openai_client(app.state.url) as openai:
            for reply in ("reward", "trend", "digit"):
                body = {"proccorpus": {"reply": reply}}
                answer = openai.chat.completions.create(
                    model="test", messages=messages, extra_body=body
                )
                unsure.append(answer.proccorpus["unsure"])
                if reply != "digit":
                    unsure.append(json.loads(answer.choices[0].message.content)["unsure"])
    playing = Playing([{"pixels": {"top": frame}} for frame in frames])
    env = ProgressReward(playing, lambda: LocalSession(knowing_scorer, task, 5.0))
    env.reset()
    assert {*unsure, env.step(0)[4]["unsure"]} == {expected}


def test_the_command_and_a_corpus_say_so(checkpoint, made, own, tmp_path, capsys):
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
    by_camera = score_episodes(
        lake, open_checkpoint(checkpoint), "bars", episodes, cameras=episodes[0].cameras
    )
    assert by_camera.scored_now == len(episodes)
    settings = ("--set", f"from_model={checkpoint}", "--allow-licence", "unknown")
    export = ("export", "rabc", "--dataset", "tiny", *settings)
    result = called(capsys, *export, "--out", tmp_path / "rabc", "--workspace", own.space.root)
    assert f"answers are unsure: {UNSEEN}" in result.err
