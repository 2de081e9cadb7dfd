"""Pictures on their way to the scoring thread: decoded side by side, and made ready while others are scored."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from eval.reward.scorer import TOLERANCE
from eval.reward.stream import StreamPicture
from eval.server import service as service_module
from eval.server.client import RewardClient
from eval.server.limits import Limits
from tests.kits.reward_server_kit import FPS, TASK, Pixels, offline, pictures, png, running

SMALL = Limits(max_body_bytes=2**20, max_pixels=128 * 128, max_frames=8)


class Readied(Pixels):
    """Notes that pictures are made ready; none can be."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Semaphore(0)

    def make_ready(self, picture: StreamPicture) -> None:
        self.ready.release()
        raise ValueError("a shape that the model cannot see")


@pytest.fixture
def served() -> Iterator[Any]:
    with running(Pixels(), SMALL) as app:
        yield app


def test_the_next_part_of_a_run_is_made_ready_while_this_one_is_scored() -> None:
    scorer = Readied()
    known = [r.progress for r in offline(Pixels(), pictures(6))]
    scorer.gate.clear()
    with (
        running(scorer, replace(SMALL, max_batch=2)) as app,
        ThreadPoolExecutor(1) as asking,
        RewardClient(app.state.url) as client,
    ):
        rows = asking.submit(client.reward_frames, pictures(6), TASK, FPS)
        try:
            # The first part's windows show 2 pictures, the second's those and 2 more; the third part waits
            assert scorer.ready.acquire(timeout=10)
            begun = sum(scorer.ready.acquire(timeout=0.5) for _ in range(8))
            assert begun > 2, "the second part is made ready while the first is held back"
            assert scorer.batches == []
        finally:
            scorer.gate.set()
        assert [r.progress for r in rows.result()] == pytest.approx(known, abs=TOLERANCE)
        assert scorer.batches == [2, 2, 2]
        assert app.state.service.batcher.taken == 0


def test_pictures_of_one_request_are_decoded_side_by_side(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=10)  # two at once, or it breaks
    decode = service_module.decode_picture

    def decode_together(*given: Any) -> Any:
        together.wait()
        return decode(*given)

    monkeypatch.setattr(service_module, "decode_picture", decode_together)
    known = [r.progress for r in offline(Pixels(), pictures(2))]
    with RewardClient(served.state.url) as client:
        rows = client.reward_frames(pictures(2), TASK, FPS)
    assert [r.progress for r in rows] == pytest.approx(known, abs=TOLERANCE)


def test_of_two_wrong_pictures_the_first_is_told(served: Any) -> None:
    files = [("frames", png(p)) for p in pictures(4)]
    for wrong in (1, 3):
        files[wrong] = ("frames", files[wrong][1][:-40])
    answer = httpx.post(f"{served.state.url}/v1/frames", data={"task": TASK, "fps": str(FPS)}, files=files)
    assert answer.status_code == 400
    assert answer.json()["reason"].startswith("picture 1 cannot be decoded")
