"""Rewards as chat completions, asked by the `openai` package over loopback."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import httpx
import numpy as np
import pytest

from core.paths import ROOT
from core.web import Access
from eval.reward.open import open_checkpoint
from eval.reward.scorer import Reward, Scorer, Success, joined_reward
from eval.reward.stream import Window
from eval.server.chat import ChatRequest, Message, task_of
from eval.server.client import RewardClient, RewardServerError
from eval.server.limits import ServerLimits
from tests.kits.cli_kit import called
from tests.kits.files import table
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene
from tests.kits.patience import PATIENCE_S
from tests.kits.reward_server_kit import (
    TASK,
    Pixels,
    get,
    openai_client,
    pictures,
    png,
    post,
    running,
    talking,
)

SUCCESS = Success("done", 1.0, 0.0, 0.4, 0.9, 5, 5)
SMALL = ServerLimits(max_body_bytes=2**20, max_pixels=128 * 128, max_frames=8)


def url(rgb: np.ndarray, kind: str = "PNG") -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(png(rgb, kind)).decode()}"


def content(frames: Any, text: str = TASK) -> list[Any]:
    return [
        *({"type": "image_url", "image_url": {"url": url(f)}} for f in frames),
        {"type": "text", "text": text},
    ]


def ask(
    address: str,
    frames: Any,
    text: str = TASK,
    token: str = "none",
    model: str = "test",
    **options: Any,
) -> Any:
    with openai_client(address, token) as client:
        messages: Any = [
            {"role": "system", "content": "Judge."},
            {"role": "user", "content": content(frames, text)},
        ]
        return client.chat.completions.create(model=model, messages=messages, **options)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory) -> Scorer:
    folder = tmp_path_factory.mktemp("laptop") / "bars"
    return open_checkpoint(make_checkpoint(folder, success=SUCCESS.as_json()))


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    with running(Pixels(), SMALL) as app:
        yield app.state.url


def test_two_pictures_get_the_reward_that_the_core_gives(laptop):
    frames = [scene(TASKS[0], share) for share in (0.0, 0.9)]
    stream = laptop.stream(TASKS[0], fps=5.0)
    (_, core_reward) = laptop.score(
        [m for f in frames if (m := stream.append({"camera": f})) is not None]
    )
    with running(laptop) as app:
        answer = ask(app.state.url, frames, TASKS[0], temperature=0, max_tokens=64)
        streamed = list(ask(app.state.url, frames, TASKS[0], stream=True))
        with openai_client(app.state.url) as client:
            assert [m.id for m in client.models.list()] == ["test"]
            assert client.models.retrieve("test").owned_by == "proccorpus"
    reply_json = json.loads(answer.choices[0].message.content)
    assert list(reply_json) == ["progress", "success", "confidence", "model", "unsure"]
    assert reply_json["progress"] == pytest.approx(core_reward.progress, abs=1e-5)
    assert reply_json["success"] is core_reward.success is (core_reward.done >= 0.4)
    assert reply_json["confidence"] == pytest.approx(
        core_reward.done if core_reward.success else 1 - core_reward.done, abs=1e-5
    )
    assert reply_json["model"] == "test"
    assert (answer.object, answer.choices[0].finish_reason) == ("chat.completion", "stop")
    assert answer.choices[0].message.refusal is None
    streamed_text = "".join(c.choices[0].delta.content or "" for c in streamed)
    assert json.loads(streamed_text)["progress"] == pytest.approx(core_reward.progress, abs=1e-5)
    assert streamed[-1].choices[0].finish_reason == "stop"


def test_an_alias_is_answered_by_the_models_own_name():
    # What is the latest model now need not be it tomorrow
    with running(Pixels(), SMALL, names=("test", "latest")) as app:
        answer = ask(app.state.url, pictures(2), model="latest")
        listed = get(f"{app.state.url}/v1/models").json()["data"]
        model_entry = get(f"{app.state.url}/v1/models/latest").json()
    assert answer.model == "test"
    assert json.loads(answer.choices[0].message.content)["model"] == "test"
    assert [model["id"] for model in listed] == ["test", "latest"]
    assert model_entry == listed[1]


def test_a_hostile_prompt_is_searched_in_a_moment():
    text = 'task "' * 16_000
    start_s = time.perf_counter()
    with pytest.raises(Exception, match="characters"):
        task_of(ChatRequest(model="m", messages=[Message(role="user", content=text)]))
    assert time.perf_counter() - start_s < 2


def test_cameras_come_moment_by_moment_or_one_after_another(shared):
    exo = pictures(2, 1)
    wrist = pictures(2, 2)
    run = {"cameras": ["exo", "wrist"]}
    mixed = ask(shared, [exo[0], wrist[0], exo[1], wrist[1]], extra_body={"proccorpus": run})
    by_camera = ask(shared, [*exo, *wrist], extra_body={"proccorpus": {**run, "order": "camera"}})
    assert mixed.choices[0].message.content == by_camera.choices[0].message.content
    stream = Pixels().stream(TASK, 2.0, cameras=("exo", "wrist"))
    moments = [stream.append({"exo": e, "wrist": w}) for e, w in zip(exo, wrist, strict=True)]
    core_reward = Pixels().score([m for m in moments if m is not None])[-1]
    assert json.loads(mixed.choices[0].message.content)["progress"] == core_reward.progress
    assert mixed.proccorpus == {
        "source": "head",
        "unsure": None,
        "views": "all",
        "cameras": dict(core_reward.cameras),
    }


class StandIn:
    """RLinf's worker for reward APIs: its request (07dc4b8f), and its two parsers (cbac7aef)."""

    def __init__(self, address: str, **sampling: Any) -> None:
        self.address = address
        self.sampling = sampling

    def ask(self, views: list[list[np.ndarray]], task: str) -> str:
        """The answer to one camera's window after another's, and a prompt."""
        text = (
            f"You are currently performing the task: {task}. Please judge it. Answer with one word."
        )
        parts = [
            {"type": "image_url", "image_url": {"url": url(f, "JPEG")}}
            for f in chain.from_iterable(views)
        ]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
        body = {"model": "test", "messages": messages, **self.sampling}
        answer = post(f"{self.address}/v1/chat/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"].get("content", ""))

    @staticmethod
    def trend(text: str) -> float:
        """Of the field `trend`, else of the last of three words, else 0."""
        rewards = {"positive": 1.0, "negative": -0.2, "unclear": 0.0}
        with contextlib.suppress(ValueError):
            parsed = json.loads(text)
            if isinstance(parsed, dict) and str(parsed.get("trend", "")).lower() in rewards:
                return rewards[str(parsed["trend"]).lower()]
        trends = re.findall(r"\b(positive|negative|unclear)\b", text.lower())
        if trends:
            return rewards[trends[-1]]
        return 0.0

    @staticmethod
    def digit(text: str, invalid: float = -1.0) -> float:
        """The last 0 or 1 that stands alone."""
        digits = re.findall(r"(?<!\d)([01])(?!\d)", text.strip())
        if digits:
            return float(digits[-1])
        return invalid


def test_rlinfs_worker_reads_a_trend_and_a_digit():
    dark = np.full((16, 16, 3), 40, np.uint8)
    light = np.full((16, 16, 3), 200, np.uint8)
    views = {"cameras": ["main", "extra"], "order": "camera"}
    with running(Calibrated()) as app:
        trend = StandIn(app.state.url, temperature=0.0, proccorpus={**views, "reply": "trend"})
        rising = [dark, light]
        falling = [light, dark]
        still = [dark, dark]
        trend_text = trend.ask([rising, rising], TASK)
        assert json.loads(trend_text)["change"] == pytest.approx(160 / 255, abs=0.01)
        assert StandIn.trend(trend_text) == 1.0
        assert StandIn.trend(trend.ask([falling, falling], TASK)) == -0.2
        assert StandIn.trend(trend.ask([still, still], TASK)) == 0.0
        # Judged together: their mean has risen
        assert StandIn.trend(trend.ask([rising, still], TASK)) == 1.0
        wide = StandIn(app.state.url, proccorpus={**views, "reply": "trend", "margin": 0.7})
        assert json.loads(wide.ask([rising, rising], TASK))["trend"] == "unclear"
        digit = StandIn(app.state.url, proccorpus={"reply": "digit"})
        assert StandIn.digit(digit.ask([rising], TASK)) == 1.0
        assert StandIn.digit(digit.ask([falling], TASK)) == 0.0


def test_a_trend_and_a_digit_without_numbers_say_nothing(shared):
    broken = [np.full((16, 16, 3), 255, np.uint8), *pictures(1)]
    answer = ask(shared, broken, extra_body={"proccorpus": {"reply": "trend"}}).choices[0].message
    reply_json = json.loads(answer.content)
    assert (reply_json["trend"], reply_json["change"]) == (None, None)
    assert "the model broke" in answer.refusal
    assert StandIn.trend(answer.content) == 0.0
    digit = (
        ask(shared, pictures(2), extra_body={"proccorpus": {"reply": "digit"}})
        .choices[0]
        .message.content
    )
    assert (digit, StandIn.digit(digit)) == ("", -1.0)


BAD = table("bad_chats")


@pytest.mark.parametrize("case", BAD, ids=[f"{b['code']}_{i}" for i, b in enumerate(BAD)])
def test_a_bad_request_is_refused_in_the_apis_shape(shared, case):
    shown = np.zeros((case.get("count", 1), *case.get("size", (64, 64)), 3), np.uint8)
    question = content(list(shown), case.get("task", TASK))
    if "address" in case:
        question[0]["image_url"]["url"] = case["address"]
    good = {"model": "test", "messages": [{"role": "user", "content": question}]}
    body = good | case.get("body", {})
    answer = post(f"{shared}/v1/chat/completions", json=body)
    assert answer.status_code == case["status"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == case["code"]
    assert case["told"] in error["message"]


def test_bodies_that_are_no_json_too_long_or_too_deep(shared):
    path = f"{shared}/v1/chat/completions"
    for body, status in ((b"{", 400), (b"[" * 3_000, 400), (b"x" * (2**20 + 1), 413), (b"", 400)):
        answer = post(path, content=body)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert get(path).json()["error"]["message"] == "Method Not Allowed"


def test_the_client_raises_its_own_errors_and_a_token_is_asked_for(shared):
    import openai

    with pytest.raises(openai.NotFoundError, match="is not served here"):
        ask(shared, pictures(1), model="other")
    with running(Pixels(), access=Access(token="a-long-enough-token")) as app:
        with pytest.raises(openai.AuthenticationError, match="a token is needed"):
            ask(app.state.url, pictures(1))
        assert ask(app.state.url, pictures(1), token="a-long-enough-token").choices


def test_several_views_are_judged_by_the_rule_that_was_asked_for():
    views = {
        "exo": Reward("head", 0.9, 0.8),
        "side": Reward("head", 0.7, 0.45),
        "wrist": Reward("head", 0.2, 0.05),
    }
    mean = joined_reward(views)
    assert (mean.progress, mean.done) == pytest.approx((0.6, 1.3 / 3))
    # The farthest from the threshold, 0.4, in logits
    best = joined_reward(views, "best", SUCCESS)
    assert (best.progress, best.done) == (0.2, 0.05)
    # Done only as far as the wrist sees it, too
    near = joined_reward(views, "wrist")
    assert (near.progress, near.done) == pytest.approx((0.8, 0.05))
    assert near.cameras == {"exo": 0.9, "side": 0.7, "wrist": 0.2}
    blind = {**views, "wrist": Reward("head", None, failure="broken")}
    assert joined_reward(blind, "wrist").progress == pytest.approx(0.8)
    none = joined_reward(
        dict.fromkeys(("exo", "wrist"), Reward("head", None, failure="broken")), "best", SUCCESS
    )
    assert (none.progress, none.failure) == (None, "exo: broken; wrist: broken")


def test_the_wrist_judges_calibrated_progress():
    scorer = Calibrated()
    stream = scorer.stream(TASK, 2.0, cameras=("exo", "wrist"), rule="wrist")
    bright, dark = (np.full((8, 8, 3), value, np.uint8) for value in (204, 51))
    moment = stream.append({"exo": bright, "wrist": dark})
    assert moment is not None
    [reward] = scorer.score([moment])
    assert (reward.progress, reward.success) == (0.8, False)
    assert reward.done == scorer.success.probability(0.2)


class Calibrated(Pixels):
    def __init__(self) -> None:
        super().__init__()
        self.window = Window(1, None)
        self.success = Success("progress", 4.0, -2.0, 0.5, 1.0, 1, 1)


SESSION = {
    "session": "s",
    "task": "t",
    "cameras": ["camera"],
    "fps": 4.0,
    "frames": 0,
    "expires_after_s": 600.0,
}
ROW = {"frame_index": 0, "timestamp_s": 0.0, "progress": 0.5, "source": "head", "latency_s": 0.0}


class Answers:
    def __init__(self, *answers: httpx.Response | type[httpx.TransportError]) -> None:
        self.answers = list(answers)
        self.seen = list[tuple[str, str, bytes]]()
        self.first_frames = list[str]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append((request.method, request.url.path, request.read()))
        if request.url.path.startswith("/v1/sessions/") and request.method == "POST":
            in_form = self.seen[-1][2].partition(b'name="first_frame"\r\n\r\n')[2][:1].decode()
            self.first_frames.append(request.url.params.get("first_frame", in_form))
        answer = self.answers.pop(0)
        if isinstance(answer, type):
            raise answer("it broke")
        return answer


def asked(
    answers: Answers, question: Callable[[RewardClient], object], patience_s: float = 30.0
) -> object:
    with RewardClient(
        "http://test", patience_s=patience_s, transport=httpx.MockTransport(answers)
    ) as client:
        return question(client)


def busy() -> httpx.Response:
    return httpx.Response(
        503, json={"error": "busy", "reason": "try again"}, headers={"Retry-After": "0"}
    )


def scored() -> httpx.Response:
    return httpx.Response(200, json={"rows": [ROW]})


def test_an_append_is_sent_again_with_the_same_number():
    created_reply = httpx.Response(201, json=SESSION)
    closed = httpx.Response(204)
    both = httpx.Response(200, json={"rows": [ROW, ROW]})
    answers = Answers(
        created_reply,
        httpx.ReadTimeout,
        busy(),
        httpx.ConnectError,
        scored(),
        busy(),
        both,
        scored(),
        closed,
    )

    def run(client: RewardClient) -> None:
        with client.session("t") as session:
            assert session.append(pictures(1)[0]).progress == 0.5
            session.append_all(pictures(2))
            session.append(pictures(1)[0])

    asked(answers, run)
    assert answers.first_frames == ["0"] * 4 + ["1"] * 2 + ["3"]


def test_a_session_is_not_made_twice():
    answers = Answers(httpx.ReadTimeout)
    with pytest.raises(RewardServerError, match="server at http://test: it broke") as e:
        asked(answers, lambda c: c.session("t"))
    assert (e.value.status, len(answers.seen)) == (None, 1)
    asked(
        Answers(httpx.ConnectError, busy(), httpx.Response(201, json=SESSION)),
        lambda c: c.session("t"),
    )


def test_a_refusal_is_told_at_once_and_patience_ends():
    answers = Answers(
        httpx.Response(413, json={"error": "picture_too_large", "reason": "picture 0 is too large"})
    )
    with pytest.raises(RewardServerError, match="refused: picture 0 is too large") as e:
        asked(answers, lambda c: c.reward_frames(pictures(1), "t", 4))
    assert (e.value.status, e.value.code, len(answers.seen)) == (413, "picture_too_large", 1)
    with pytest.raises(RewardServerError, match="try again"):
        asked(Answers(busy()), lambda c: c.model(), patience_s=0)
    with pytest.raises(RewardServerError, match="answered 502"):
        asked(Answers(httpx.Response(502, text="<html>")), lambda c: c.model())
    with pytest.raises(ValueError, match="uint8"):
        asked(Answers(), lambda c: c.reward_frames([pictures(1)[0].astype(float)], "t", 4))


def serve(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "proccorpus.py", "serve", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_signal_ends_the_server_when_open_requests_are_answered(tmp_path):
    process = serve("--baseline", "clock", "--port", "0", "--workspace", str(tmp_path))
    try:
        url = process.stdout.readline().strip().removeprefix("listening on ")
        token = (tmp_path / ".token-serve").read_text()
        assert process.stdout.readline() == f"in a browser: {url}/docs?token={token}\n"
        with RewardClient(url) as client, pytest.raises(RewardServerError, match="token is needed"):
            client.model()
        with RewardClient(url, token) as client:
            assert client.model().source == "clock"
        body = b'{"task": "Open it."}'
        head = "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        with talking(url) as s:
            s.sendall(head.encode() + body[:5])
            with RewardClient(url, token) as client:
                client.model()
            process.send_signal(signal.SIGTERM)
            wait_until_refused(url)
            s.sendall(body[5:])
            answer = s.recv(65536)
        assert answer.startswith(b"HTTP/1.1 201")
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out, err) == (0, "", "stopped\n")
    finally:
        process.kill()
        process.communicate()


def wait_until_refused(url: str) -> None:
    for _ in range(1000):
        try:
            with talking(url) as s:
                s.settimeout(0.05)
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                s.recv(1)
        except (ConnectionError, TimeoutError):
            return
    raise AssertionError("the server goes on accepting")


def test_wrong_use_of_serve(tmp_path, capsys):
    for name, mode in (("short", 0o600), ("seen", 0o644), ("changed", 0o620), ("foreign", 0o600)):
        (tmp_path / name).write_text("secret\n" if name == "short" else "a-token-of-some-length\n")
        (tmp_path / name).chmod(mode)
    foreign = "belongs to another user"
    if os.getuid() == 0:
        os.chown(tmp_path / "foreign", 12345, -1)
    else:
        (tmp_path / "foreign").chmod(0o602)
        foreign = "others than its owner"
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        port = str(taken_port.getsockname()[1])
        clock = ("--baseline", "clock")
        no = str(tmp_path / "no")
        for arguments, message in (
            (
                (*clock, "--host", "0.0.0.0", "--no-token"),
                "other machines can reach 0.0.0.0: give a tok",
            ),
            ((*clock, "--token-file", str(tmp_path / "short")), "at least 16 printable ASCII"),
            ((*clock, "--token-file", no), "cannot be read"),
            (
                (*clock, "--token-file", str(tmp_path / "seen")),
                "read by every user of this machine",
            ),
            (
                (*clock, "--token-file", str(tmp_path / "changed")),
                "written by others than its owner",
            ),
            ((*clock, "--token-file", str(tmp_path / "foreign")), foreign),
            (("--model", "m", *clock), "give either --model M or --baseline"),
            (("--endpoint", "http://127.0.0.1:9/v1"), "--endpoint needs --model"),
            (("--model", "nobody", "--workspace", no), "nobody"),
            (
                (*clock, "--port", port),
                f"cannot listen on 127.0.0.1:{port}: Address already in use",
            ),
        ):
            result = called(capsys, "serve", *arguments)
            errors = [
                line
                for line in result.err.splitlines()
                if not line.startswith("note: no token: every user")
            ]
            assert (result.code, result.out, len(errors)) == (2, "", 1), result.err
            assert message in errors[0]
