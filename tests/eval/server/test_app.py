"""The reward server: right numbers for each session, and a reason for what it refuses."""

import io
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from multiprocessing import active_children
from operator import attrgetter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks import reward_server as bench
from core.web import Access
from eval.reward.open import BaselineScorer, ModelScorer, open_checkpoint
from eval.reward.scorer import TOLERANCE, CameraView, Reward
from eval.reward.video import open_clip, score_clip
from eval.server import limits as server_limits
from eval.server import service, videos
from eval.server.client import RewardClient, RewardServerError
from eval.server.limits import ServerLimits
from ingest.media.video import decode
from tests.kits.fault_kit import wait_for
from tests.kits.files import table
from tests.kits.patience import PATIENCE_S
from tests.kits.reward_kit import make_checkpoint, write_video
from tests.kits.reward_server_kit import (
    FPS,
    POISON,
    TASK,
    Pixels,
    get,
    heard,
    offline,
    pictures,
    png,
    post,
    running,
    talking,
)
from tests.kits.standins import sleep, sleep_for_minutes, stay_busy, take_a_gigabyte

SMALL = ServerLimits(max_body_bytes=2**20, max_pixels=128 * 128, max_frames=8, max_sessions=80)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelScorer:
    return open_checkpoint(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def served() -> Iterator[Any]:
    with running(Pixels(), SMALL) as app:
        app.state.pixels = app.state.service.scorer
        yield app


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """The address of a server for many tests."""
    with running(Pixels(), SMALL) as app:
        yield app.state.url


@pytest.fixture
def client(served: Any) -> Iterator[RewardClient]:
    with RewardClient(served.state.url, patience_s=0) as c:
        yield c


def test_a_runs_reward_is_the_same_from_session_frames_video_and_core(model, tmp_path):
    video = tmp_path / "run.mp4"
    write_video(
        video, [np.kron(p[:4, :4], np.ones((16, 16, 1), np.uint8)) for p in pictures(12)], fps=4
    )
    clip_rows = list(score_clip(model, open_clip({"camera": video}), TASK, score_fps=4))
    frames = [f.rgb() for f in decode(video)]
    limits = ServerLimits(max_batch=5)
    with running(model, limits) as app, RewardClient(app.state.url) as client:
        batch = client.reward_video(video, TASK, fps=4)
        whole = client.reward_frames(frames, TASK, fps=4)
        with client.session(TASK, fps=4) as session:
            live = [session.append(f) for f in frames[:3]] + list(session.append_all(frames[3:]))
        assert client.model().window == "4 pictures, 0.4 s apart"
    progress = [row["progress"] for row in clip_rows]
    assert len(set(progress)) == len(progress) == 12
    for rows in (batch, whole, live):
        assert [r.progress for r in rows] == pytest.approx(progress, abs=TOLERANCE)
        assert [r.frame_index for r in rows] == list(range(12))
        assert [r.timestamp_s for r in rows] == [row["timestamp_s"] for row in clip_rows]
        assert rows[0].delta is None
        assert [r.delta for r in rows[1:]] == pytest.approx(np.diff(progress), abs=2 * TOLERANCE)


def test_cameras_are_told_apart_and_baselines_get_their_end():
    runs: list[Any] = [
        dict(zip(("exo", "wrist"), pictures(2, seed), strict=True)) for seed in range(5)
    ]
    scorer = Pixels()
    offline_rewards = offline(scorer, runs, cameras=("exo", "wrist"))
    with running(scorer) as app, RewardClient(app.state.url) as client:
        with client.session(TASK, ("exo", "wrist"), FPS) as session:
            rows = [session.append(dict(reversed(run.items()))) for run in runs]
        for answer in (rows, client.reward_frames(runs, TASK, FPS)):
            assert [r.progress for r in answer] == [r.progress for r in offline_rewards]
            assert [r.cameras for r in answer] == [r.cameras for r in offline_rewards]
        with pytest.raises(RewardServerError, match="only the baseline `visual`"):
            client.session(TASK, goal={"camera": pictures(1)[0]})
    frames = pictures(5)
    with running(BaselineScorer("clock")) as app, RewardClient(app.state.url) as client:
        timed = client.reward_frames(frames, TASK, FPS)
        assert [r.progress for r in timed] == [0, 0.25, 0.5, 0.75, 1]
        with client.session(TASK, fps=FPS, duration_s=2.0) as session:
            assert [session.append(f).progress for f in frames] == [0, 0.125, 0.25, 0.375, 0.5]
        with client.session(TASK, fps=FPS) as session:
            row = session.append(frames[0])
        assert (row.progress, row.delta) == (None, None)
        assert row.failure == "the clock needs the run's duration_s"
    with running(BaselineScorer("visual")) as app, RewardClient(app.state.url) as client:
        with client.session(TASK, goal={"camera": frames[-1]}) as session:
            live = [session.append(f).progress for f in frames]
        assert [r.progress for r in client.reward_frames(frames, TASK, FPS)] == live
        assert (live[0], live[-1]) == (0, 1)


def test_a_repeated_request_is_scored_once(served, client):
    url = served.state.url
    frames = pictures(3)
    with client.session(TASK) as session:
        path = f"{url}/v1/sessions/{session.info.session}/frames"

        def send(frame: np.ndarray, first: int) -> httpx.Response:
            return post(path, files={"frames": png(frame)}, data={"first_frame": first})

        once = send(frames[0], 0)
        second_reply = send(frames[0], 0)
        assert (once.status_code, once.json()) == (200, second_reply.json())
        assert served.state.pixels.batches == [1]
        assert send(frames[1], 0).json()["error"] == "out_of_turn"
        assert send(frames[1], 2).json()["reason"] == "the next frame is number 1, not 2"
        served.state.pixels.gate.clear()
        with ThreadPoolExecutor(3) as pool:
            # One of them comes while the other is scored
            both = [pool.submit(send, frames[1], 1) for _ in range(2)]
            wait_for(lambda: session_of(served).is_busy)
            assert send(frames[2], 2).json()["error"] == "session_busy"
            served.state.pixels.gate.set()
            answers = [b.result() for b in both]
        assert answers[0].json() == answers[1].json()
        assert served.state.pixels.batches == [1, 1]
        assert post(path, files={"frames": png(frames[2])}).json()["rows"][0]["frame_index"] == 2
    assert get(f"{url}/v1/sessions/{session.info.session}").status_code == 404


def session_of(served: Any) -> Any:
    (session,) = served.state.service.sessions._all.values()
    return session


def test_refused_frames_leave_a_session_as_it_was(client, served):
    frames = pictures(2)
    with client.session(TASK, fps=FPS) as session:
        first = session.append(frames[0])
        path = f"{served.state.url}/v1/sessions/{session.info.session}/frames"
        files = [("frames", png(frames[1])), ("frames", b"no picture")]
        refused = post(path, files=files, data={"first_frame": 1})
        assert refused.status_code == 415
        assert refused.json()["reason"] == "picture 1 is not a JPEG, PNG or WebP picture"
        assert get(path.removesuffix("/frames")).json()["frames"] == 1
        second = session.append(frames[1])
    assert [first.progress, second.progress] == [r.progress for r in offline(Pixels(), frames)]


def test_idle_sessions_expire_and_full_is_full():
    limits = replace(SMALL, max_sessions=2, session_idle_s=0.4)
    with running(Pixels(), limits) as app, RewardClient(app.state.url, patience_s=0) as client:
        expired = client.session(TASK)
        _ = client.session(TASK)
        with pytest.raises(RewardServerError, match="all 2 sessions are taken") as e:
            client.session(TASK)
        assert (e.value.status, e.value.code) == (503, "sessions_full")
        wait_for(lambda: len(app.state.service.sessions) == 0)
        with pytest.raises(RewardServerError, match=r"closed, or not used for 0\.4 s"):
            expired.append(pictures(1)[0])
        expired.close()
        assert "sessions_expired_total 2.0" in get(f"{app.state.url}/metrics").text


def test_what_a_session_keeps_does_not_grow(served):
    with RewardClient(served.state.url) as client, client.session(TASK, fps=20) as session:
        for _ in range(20):
            session.append_all(pictures(8, size=8))
        assert session.frames == 160
        stream = session_of(served).stream
        assert len(stream._kept) == stream.window.reach(20) == 20
    limits = replace(SMALL, max_kept_bytes=60 * 32 * 32 * 3)
    with running(Pixels(), limits) as app, RewardClient(app.state.url, patience_s=0) as client:
        sessions = [client.session(TASK, fps=20) for _ in range(4)]
        for session in sessions[:3]:
            session.append(pictures(1)[0])
        with pytest.raises(RewardServerError, match="keep too many pictures") as e:
            sessions[3].append(pictures(1)[0])
        assert e.value.status == 503

    class Seeing(Pixels):
        def views(self, views: Sequence[CameraView]) -> list[Reward]:
            for picture in chain.from_iterable(v.pictures for v in views):
                picture.seen_bytes = 10_000
            return super().views(views)

    with running(Seeing(), limits) as app, RewardClient(app.state.url, patience_s=0) as client:
        client.session(TASK, fps=20).append(pictures(1)[0])
        with pytest.raises(RewardServerError, match="keep too many pictures"):
            client.session(TASK, fps=20).append(pictures(1)[0])


GOOD = png(pictures(1)[0])
ARRAYS = io.BytesIO()
np.save(ARRAYS, np.array([{"a": 1}]), allow_pickle=True)
RUN = {"task": TASK, "fps": "4"}


PICTURES = {
    "good": GOOD,
    "empty": b"",
    "text": b"text",
    "arrays": ARRAYS.getvalue(),
    "gif": png(pictures(1)[0], "GIF"),
    "deep": png(np.zeros((8, 8), np.uint16)),
    "half": GOOD[: len(GOOD) // 2],
    "header": GOOD[:20],
    "large": png(pictures(1, size=130)[0]),
}
WRONG = [*table("wrong_frames"), (["good"], {"task": "x" * 3000}, 422, "task: ")]


@pytest.mark.parametrize(("names", "changes", "status", "reason"), WRONG)
def test_frames_that_cannot_be_scored(shared, names, changes, status, reason):
    fields = {name: value for name, value in (RUN | changes).items() if value is not None}
    files = [("frames", PICTURES[name]) for name in names]
    answer = post(f"{shared}/v1/frames", data=fields, files=files)
    error_body = answer.json()
    assert (answer.status_code, set(error_body)) == (status, {"error", "reason"}), error_body
    assert reason in error_body["reason"], error_body
    with RewardClient(shared) as client:
        assert (
            client.reward_frames(pictures(1), TASK, FPS)[0].progress
            == offline(Pixels(), pictures(1))[0].progress
        )


def test_a_picture_beyond_the_limit_of_pillow(shared, monkeypatch):
    # Which Pillow refuses itself, before its header is looked at
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    answer = post(f"{shared}/v1/frames", data=RUN, files={"frames": GOOD})
    assert answer.status_code == 413
    assert answer.json()["reason"] == "picture 0 has more than 16384 pixels"


@pytest.mark.parametrize("standin", [stay_busy, sleep, take_a_gigabyte])
def test_a_picture_that_takes_too_much_is_given_up(standin, monkeypatch):
    """Some of a few MB took minutes."""
    monkeypatch.setattr(server_limits, "_decoded", standin)
    # Each is ended by the one limit that it is beyond
    monkeypatch.setattr(server_limits, "WALL_S", 2.0 if standin is sleep else 60.0)
    monkeypatch.setattr(server_limits, "CPU_S", 0.5 if standin is stay_busy else 60.0)
    with running(Pixels(), SMALL) as app:
        answer = post(f"{app.state.url}/v1/frames", data=RUN, files={"frames": GOOD})
    assert answer.status_code == 413
    assert "takes more CPU or memory" in answer.json()["reason"]


def test_videos_that_cannot_be_scored(served, tmp_path):
    write_video(tmp_path / "good.mp4", pictures(8, size=64), fps=4)
    write_video(tmp_path / "large.mp4", pictures(2, size=256))
    good = (tmp_path / "good.mp4").read_bytes()
    secret = tmp_path / "secret.png"
    secret.write_bytes(GOOD)
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()

    def asked(data: bytes, **fields: Any) -> httpx.Response:
        files = {"videos": ("v.mp4", data)}
        return post(f"{served.state.url}/v1/videos", data={"task": TASK} | fields, files=files)

    for data, status, reason in [
        (b"", 415, "not an MP4"),
        (b"this is a text file that was given the name of a video", 415, "not an MP4"),
        (playlist, 415, "not an MP4"),
        (b"ffconcat version 1.0\nfile secret.png\n", 415, "not an MP4"),
        (good[:200], 422, "camera.video has no video stream"),
        (good[: len(good) * 6 // 10], 422, "camera.video is cut off or damaged"),
        (
            (tmp_path / "large.mp4").read_bytes(),
            413,
            "the video of camera is 256x256: more than 16384 pixels",
        ),
    ]:
        answer = asked(data)
        assert (answer.status_code, reason in answer.json()["reason"]) == (status, True), reason
    assert asked(good, cameras=["a", "b"]).json()["reason"] == "1 videos for 2 cameras"
    assert "of which 30 cannot be scored" in asked(good, fps=30).json()["reason"]
    assert len(asked(good).json()["rows"]) == 8


def test_a_body_announced_as_too_large_is_not_read(served, client):
    with talking(served.state.url) as s:
        s.sendall(b"POST /v1/frames HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        s.sendall(b"Content-Length: 104857600\r\n\r\n")
        answer = heard(s)
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "error": "body_too_large",
        "reason": "the body has more than 1048576 bytes",
    }

    assert client.reward_frames(pictures(1), TASK, FPS)[0].progress is not None


def test_a_run_is_not_scored_on_for_a_client_that_is_gone():
    scorer = Pixels()
    with running(scorer, replace(SMALL, max_batch=2)) as app:
        batcher = app.state.service.batcher
        scorer.gate.clear()
        files = [("frames", png(f)) for f in pictures(8)]
        with httpx.Client(timeout=PATIENCE_S) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post(
                f"{app.state.url}/v1/frames",
                data=RUN,
                files=files,
                timeout=httpx.Timeout(30, read=0.2),
            )
        wait_for(lambda: not app.state.server.server_state.connections)
        scorer.gate.set()
        wait_for(lambda: batcher.taken == 0)
        assert sum(scorer.batches) <= 2


@pytest.mark.parametrize("baseline", ["clock", "visual"])
def test_decoding_ends_soon_after_its_client_has_gone(baseline, tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "_advance", sleep_for_minutes)
    monkeypatch.setattr(videos, "WALL_S", 900.0)
    video = tmp_path / "run.mp4"
    write_video(video, pictures(8, size=64), fps=4)
    with running(BaselineScorer(baseline), SMALL) as app:
        assert get(f"{app.state.url}/readyz").is_success
        children_before = set(active_children())
        files = [("videos", video.read_bytes())]
        with httpx.Client(timeout=PATIENCE_S) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post(
                f"{app.state.url}/v1/videos",
                data=RUN,
                files=files,
                timeout=httpx.Timeout(30, read=1),
            )
        assert set(active_children()) > children_before
        wait_for(lambda: set(active_children()) == children_before)
        with RewardClient(app.state.url) as client:
            assert client.model().source


@pytest.mark.parametrize("baseline", ["clock", "visual"])
def test_baselines_score_a_video_from_its_beginning(baseline, tmp_path):
    video = tmp_path / "run.mp4"
    write_video(video, pictures(8, size=64), fps=4)
    with running(BaselineScorer(baseline), SMALL) as app:
        answer = post(
            f"{app.state.url}/v1/videos", data={"task": TASK}, files={"videos": video.read_bytes()}
        )
    assert answer.status_code == 200, answer.text
    progress = [row["progress"] for row in answer.json()["rows"]]
    assert len(progress) == 8
    assert progress[0] < 0.5
    assert progress[-1] == pytest.approx(1)


def test_videos_that_take_too_much_are_refused(tmp_path, monkeypatch):
    # One whose pictures have thousands of scans took minutes
    def refused(video: Path, **limits: Any) -> str:
        with running(BaselineScorer("clock"), replace(SMALL, **limits)) as app:
            sent = [("videos", video.read_bytes())]
            answer = post(f"{app.state.url}/v1/videos", data=RUN, files=sent)
        assert answer.status_code == 413
        return answer.json()["error"]

    monkeypatch.setattr(service, "VIDEO_S", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(videos, "_advance", stay_busy)
        video = tmp_path / "run.mp4"
        write_video(video, pictures(8, size=64), fps=4)
        assert refused(video) == "video_too_costly"
    monkeypatch.setattr(videos, "_advance", abs)  # which fails
    for side, limits, error in (
        (64, {"max_video_s": 1.0}, "video_too_long"),
        (256, {}, "picture_too_large"),
    ):
        video = tmp_path / f"{side}.mp4"
        write_video(video, [np.zeros((side, side, 3), np.uint8)] * 8, fps=4)
        assert refused(video, **limits) == error


def misbehave(url: str, stop: threading.Event) -> set[object]:
    statuses: set[object] = set()
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as c, RewardClient(url) as client:
        while True:
            for content in (b"no picture", GOOD[: len(GOOD) // 2]):
                statuses.add(c.post("/v1/frames", data=RUN, files={"frames": content}).status_code)
            statuses.add(
                c.post(
                    "/v1/videos",
                    data={"task": TASK},
                    files={"videos": ("run.mp4", b"a text" * 1000)},
                ).status_code
            )
            with talking(url) as s:
                s.sendall(
                    b"POST /v1/frames HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
                )
            with client.session(TASK, fps=FPS) as session:
                statuses.add(
                    (
                        session.append(np.full((128, 128, 3), POISON, np.uint8)).failure or ""
                    ).partition(":")[0]
                )
            if stop.wait(0.2):
                return statuses


def test_sessions_get_their_numbers_while_others_misbehave():
    runs = [pictures(6, seed) for seed in range(16)]
    offline_progress: list[Any] = [
        list(map(attrgetter("progress"), offline(Pixels(), run, bench.FPS))) for run in runs
    ]
    stop = threading.Event()
    limits = replace(ServerLimits(), max_body_bytes=2**20)
    with running(Pixels(), limits) as app, ThreadPoolExecutor(4) as pool:
        wrong = [pool.submit(misbehave, app.state.url, stop) for _ in range(4)]
        load_result = bench.load(app.state.url, runs, offline_progress)
        stop.set()
        assert [w.result() for w in wrong] == [{415, 400, "RuntimeError"}] * 4
        wait_for(lambda: app.state.service.batcher.taken == 0)
        assert len(app.state.service.sessions) == 0
    assert (load_result.difference, load_result.failed) == (0, 0)
    assert len(load_result.latency_s) == 16 * 6


def test_a_full_queue_says_when_to_come_again():
    scorer = Pixels()
    frames = pictures(3)
    with running(scorer, replace(SMALL, max_waiting=2)) as app, ThreadPoolExecutor(3) as pool:
        url = app.state.url
        batcher = app.state.service.batcher
        scorer.gate.clear()

        def live(frame: np.ndarray, patience_s: float) -> float | None:
            with (
                RewardClient(url, patience_s=patience_s) as client,
                client.session(TASK, fps=FPS) as session,
            ):
                return session.append(frame).progress

        first = [pool.submit(live, f, 0) for f in frames[:2]]
        wait_for(lambda: batcher.taken == 2)
        with pytest.raises(RewardServerError, match="2 frames are waiting") as e:
            live(frames[2], 0)
        assert (e.value.status, e.value.code) == (503, "busy")
        patient = pool.submit(live, frames[2], 30)
        scorer.gate.set()
        assert [f.result() for f in (*first, patient)] == [
            offline(scorer, [f])[0].progress for f in frames
        ]
        assert batcher.taken == batcher.pixels == 0


def test_who_may_ask():
    # By the guard of all our servers (tests/core/test_web.py)
    token = "correct-horse-battery"
    with running(Pixels(), SMALL, Access(token)) as app:
        url = app.state.url

        def asked(path: str, **headers: str) -> int:
            return get(url + path, headers=headers).status_code

        open_to_all = ("/healthz", "/readyz", "/docs", "/openapi.json")
        assert {asked(p) for p in (*open_to_all, "/static-offline-docs/swagger-ui.css")} == {200}
        refused = post(f"{url}/v1/sessions", json={"task": TASK})
        assert (refused.status_code, refused.json()["error"]) == (401, "token")
        assert asked("/metrics") == asked("/v1/model", Authorization=f"Basic {token}") == 401
        with RewardClient(url, token) as client, client.session(TASK, fps=FPS) as session:
            assert session.append(pictures(1)[0]).progress is not None
        right = {"Authorization": f"Bearer {token}"}
        assert asked("/v1/model", **right, Host="evil.example") == 421
    with running(Pixels(), SMALL, Access(token, hosts=None)) as app:
        url = app.state.url
        assert asked("/healthz", Host="rewards.example") == 200


def test_watchers_see_what_happens(served, client):
    url = served.state.url
    client.reward_frames([*pictures(2), np.full((32, 32, 3), POISON, np.uint8)], TASK, FPS)
    get(f"{url}/no/such/page")
    page = get(f"{url}/metrics").text
    for line in (
        'requests_total{endpoint="/v1/frames",method="POST",status="200"} 1.0',
        'requests_total{endpoint="other",method="other",status="404"} 1.0',
        "frames_total 3.0",
        "failures_total 1.0",
        "sessions 0.0",
        "waiting 0.0",
    ):
        assert f"proccorpus_reward_{line}" in page
    described = get(f"{url}/openapi.json").json()
    for path, methods in described["paths"].items():
        for method in methods.values():
            assert method["description"], path
    assert described["components"]["schemas"]["NewSession"]["examples"]
    docs = get(f"{url}/docs").text
    # All of the page comes from this server
    assert "https://" not in docs.replace("https://fastapi", "")
