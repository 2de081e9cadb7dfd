"""The client repeats what is safe to repeat, and the command starts, refuses and ends as it should."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from core.paths import ROOT
from eval.server.client import RewardClient, RewardServerError
from tests.kits.cli_kit import called
from tests.kits.patience import PATIENCE_S
from tests.kits.reward_server_kit import pictures, talking

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
    """A server in place of a network: what comes next, exceptions included."""

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
    with pytest.raises(
        RewardServerError, match="no answer from the reward server at http://test: it broke"
    ) as e:
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


def test_a_signal_ends_the_server_when_open_requests_are_answered(tmp_path: Path):
    process = serve("--baseline", "clock", "--port", "0", "--workspace", str(tmp_path))
    try:
        assert process.stdout is not None
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
                client.model()  # so the server has begun with the one before
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


def test_wrong_use_of_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
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
