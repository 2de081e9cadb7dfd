"""A reward model as a subprocess, in the protocol of RLinf's subprocess backends, over stdin and stdout.

    python eval/rl/rlinf.py --model-path FOLDER [--fps 4] [--cameras exo,wrist]

In RLinf: `reward.model.procvlm_server_script: .../eval/rl/rlinf.py`, `procvlm_python: .../.venv/bin/python`. Other
flags of its own script are named on stderr and left out.

A message is 4 bytes of length, big-endian, and JSON in UTF-8, at most 512 MiB. Requests are `{"id", "op":
"batch_infer", "batch_items"}`; an item has `image`, pictures moment by moment, the oldest first, and the `task`, or it
in quotes in `conversations`. An output is `<progress>NN.NN%</progress>`; where there is no number it says why without
that tag, which RLinf reads as progress 0, and `eval.rl.wrapper` does not.
"""

import argparse
import base64
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError
from eval.reward.open import open_checkpoint
from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Moment, StreamPicture, picture_cache
from eval.server.chat import QUOTED_TASK
from eval.server.limits import ServerLimits, decode_picture

IMAGE_KEY = "__rlinf_image__"
MAX_MESSAGE_BYTES = 512 * 2**20


def read_message(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message; None at the end of the stream. Raises UserError."""
    head = stream.read(4)
    if not head:
        return None
    size = int.from_bytes(head, "big")
    # Once a length is wrong, no later message can be found in the stream.
    if len(head) < 4 or size > MAX_MESSAGE_BYTES:
        raise UserError(
            f"a message of {size} bytes, or a head of {len(head)}: the stream is out of step"
        )
    body = stream.read(size)
    if len(body) < size:
        raise UserError(f"the stream ended after {len(body)} of {size} bytes")
    message = json.loads(body)
    if not isinstance(message, dict):
        raise UserError("a message is a JSON object")
    return message


def write_message(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


class Adapter:
    """Items to outputs. `fps`: of the pictures that an item shows; the model's window is chosen among them."""

    def __init__(self, scorer: Scorer, fps: float, cameras: Sequence[str] = ("camera",)) -> None:
        self.scorer = scorer
        self.fps = fps
        self.cameras = tuple(cameras)
        self._kept = picture_cache()

    def serve(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Answers until the stream ends or says shutdown. Raises UserError for a stream that is out of step."""
        write_message(sink, {"type": "ready", "ok": True})
        while (request := read_message(source)) is not None:
            answer: dict[str, Any] = {"id": request.get("id")}
            if request.get("op") == "shutdown":
                write_message(sink, {**answer, "ok": True, "shutdown": True})
                return
            # A request that cannot be answered is told so; only a stream that is out of step ends the service.
            try:
                if request.get("op") != "batch_infer":
                    raise UserError(f"no such op: {request.get('op')!r}")
                answer |= {"ok": True, "outputs": self.outputs(request.get("batch_items") or [])}
            except Exception as e:  # the protocol's way: the parent decides whether to go on
                answer |= {
                    "ok": False,
                    "error": f"{type(e).__name__}: {e}",
                    "traceback": traceback.format_exc(),
                }
            write_message(sink, answer)

    def outputs(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """One per item. Raises UserError, RewardError or Refused for items that cannot be read."""
        moments = [self._moment(i, item) for i, item in enumerate(items)]
        return [reward_text(reward) for reward in self.scorer.score(moments)]

    def _moment(self, number: int, item: Mapping[str, Any]) -> Moment:
        stream = self.scorer.stream(task_of(item, number), self.fps, cameras=self.cameras)
        images = item.get("image")
        if not isinstance(images, list) or not images or len(images) % len(self.cameras):
            num_images = len(images) if isinstance(images, list) else 0
            raise UserError(
                f"item {number} has {num_images} images, not some for each of {', '.join(self.cameras)}"
            )
        pictures = [
            self._picture(image, f"image {k} of item {number}") for k, image in enumerate(images)
        ]
        count = len(images) // len(self.cameras)
        # Pictures come moment by moment: a camera's own are every n-th of them.
        by_camera = {c: pictures[k :: len(self.cameras)] for k, c in enumerate(self.cameras)}
        # The newest picture is the moment to score; the window reaches back from there.
        return stream.last_moment(count, lambda frame, camera: by_camera[camera][frame])

    def _picture(self, image: Any, name: str) -> StreamPicture:
        data = image.get(IMAGE_KEY) if isinstance(image, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("data"), str):
            raise UserError(f"{name} is no {IMAGE_KEY}")
        raw = base64.b64decode(data["data"], validate=True)
        return self._kept(self.scorer.fit(decode_picture(raw, ServerLimits.max_pixels, name)))


def task_of(item: Mapping[str, Any], number: int) -> str:
    """Raises UserError."""
    if isinstance(item.get("task"), str):
        return item["task"]
    talk = item.get("conversations")
    if isinstance(talk, list) and talk and isinstance(talk[0], dict):
        prompt = talk[0].get("value", "")
    else:
        prompt = ""
    match = QUOTED_TASK.search(str(prompt))
    if match is None:
        raise UserError(
            f'item {number} names no task: give `task`, or a prompt with: the task "..."'
        )
    return match["task"]


def reward_text(reward: Reward) -> str:
    if reward.progress is None:
        return f"no progress: {reward.failure}"
    return f"<progress>{100 * reward.progress:.2f}%</progress>"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A reward model for RLinf's subprocess backends.")
    parser.add_argument("--model-path", required=True, help="A checkpoint's folder.")
    parser.add_argument(
        "--fps", type=float, default=4.0, help="Of the pictures that an item shows."
    )
    parser.add_argument(
        "--cameras", default="camera", help="Names, by commas, in the order of an item's pictures."
    )
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        print(f"left out: {' '.join(unknown)}", file=sys.stderr)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever prints, the stream of messages stays clean
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    scorer = open_checkpoint(Path(arguments.model_path))
    try:
        Adapter(scorer, arguments.fps, arguments.cameras.split(",")).serve(
            sys.stdin.buffer, answers
        )
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Started by its path, Python would look for modules beside it first
    sys.path[:] = [
        p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent
    ]
    sys.exit(main())
