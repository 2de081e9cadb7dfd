"""How many rewards a second: vision shared between windows, vision seen anew by each, and a loop as it is published.

    python -m benchmarks.reward [--moments 48] [--out FILE.json]

All three score the same moments of one video with windows of 8 pictures. The first two are the same code and the same
head, with and without sharing, and have to give the same numbers; the third goes about it as ProcVLM's inference does:
each frame of the video into a JPEG file, 8 of these opened for each moment, windows filled up with the first picture,
8 moments at a time, of which the number is read from words (ANSWER_TOKENS of them) that are generated one by one.

On a CPU the model is small, and has random weights; the share of its work that is the vision tower's, printed beside
that of Qwen3-VL-2B, is about that model's. Where there is a GPU, the model is of Qwen3-VL-2B's size, in bfloat16.
Counted is CPU time of one thread, or on a GPU time on the clock. Wrong counts and unequal numbers exit 1.
"""

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from annotate.samples.procvqa import progress_question
from benchmarks import true_size
from benchmarks.harness import Figure, expect, measure
from eval.reward.open import ModelScorer
from eval.reward.stream import StreamPicture, Window
from eval.reward.video import open_clip, score_clip
from eval.runners.checkpoint import BATCH
from eval.runners.local import ModelRunner
from eval.runners.prompt import Asked, ModelReply
from tests.kits.lerobot_writer import write_video
from training.backbones import make_backbone, make_processor, make_tokenizer
from training.model import ProgressModel, make_head
from training.pictures import chat, decode_picture
from training.plan import cost
from training.recipe import HeadConfig, TinyConfig

# Thin and as deep as half of Qwen3-VL-2B: a step of generation waits for layer after layer, as it does there
SMALL = TinyConfig(
    vocabulary=800,
    hidden=128,
    layers=14,
    heads=4,
    vision_hidden=64,
    vision_layers=12,
    patch=16,
    max_px=128,
)
TRUE = true_size.SHAPES["Qwen3-VL-2B"]
TASK = "put the red cube into the drawer and close the drawer"
FPS = 20
SCORE_FPS = 4
WINDOW = Window(8, 1 / SCORE_FPS)
AT_ONCE = 8
ANSWER_TOKENS = 64
JPEG_QUALITY = 95
VIDEO_PX = 256
FLOOR_SHARED = 1.5
FLOOR_PUBLISHED = 4.0
TOLERANCE = {"cpu": 1e-5, "cuda": 2e-2}  # float32, bfloat16


def vision_share(backbone: Any, side_px: int) -> float:
    """Of the arithmetic on one picture of a window: the vision tower's part beside the language model's."""
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    costs = cost(backbone)
    patches = (side_px // 16) ** 2
    vision = costs.vision * patches + costs.vision_attention * patches**2
    tokens = patches / 4
    window = WINDOW.frames * tokens
    language = costs.language * tokens + costs.language_attention * window * tokens
    return vision / (vision + language)


class Unshared(ModelRunner):
    """Looks at the pictures of each window anew."""

    def ask(self, asked: Sequence[Asked]) -> list[ModelReply]:
        unshared = []
        for prompt in asked:
            pictures = tuple(StreamPicture(picture.rgb) for picture in prompt.pictures)
            unshared.append(replace(prompt, pictures=pictures))
        return super().ask(unshared)


def make_scorers(device: str) -> tuple[ModelScorer, ModelScorer, ModelRunner, float]:
    """With and without sharing, of one model; what asks it, and its vision share."""
    config = SMALL if device == "cpu" else SMALL.model_copy(update={"max_px": VIDEO_PX})
    tokenizer = make_tokenizer([progress_question(TASK, WINDOW.frames)], config.vocabulary)
    processor = make_processor(tokenizer, config)
    if device == "cpu":
        model = ProgressModel(
            make_backbone(tokenizer, config, 0), make_head(HeadConfig(), config.hidden)
        )
    else:
        backbone = true_size.make_backbone(TRUE, tokenizer, device)
        model = ProgressModel(
            backbone.to(torch.bfloat16), make_head(HeadConfig(), TRUE.text["hidden_size"])
        )
    model = model.eval()
    share = vision_share(model.backbone, config.max_px)
    card = {"max_px": config.max_px}
    runner, unshared = (kind(model, processor, card, BATCH) for kind in (ModelRunner, Unshared))
    return ModelScorer(runner, WINDOW, card), ModelScorer(unshared, WINDOW, card), runner, share


def write_moving(path: Path, moments: int) -> int:
    """Something that moves over a textured ground; returns the number of frames."""
    count = (moments - 1) * FPS // SCORE_FPS + 1
    cells = np.random.default_rng(0).integers(60, 200, (VIDEO_PX // 8, VIDEO_PX // 8, 3), np.uint8)
    ground = cv2.resize(cells, (VIDEO_PX, VIDEO_PX), interpolation=cv2.INTER_CUBIC)
    pictures = (
        cv2.circle(ground.copy(), (20 + k * 200 // count, 128), 16, (220, 40, 40), -1)
        for k in range(count)
    )
    write_video(path, pictures, fps=FPS, options={"crf": "18", "preset": "veryfast"})
    return count


def ours(scorer: ModelScorer, video: Path) -> list[float]:
    return [
        r["progress"]
        for r in score_clip(scorer, open_clip({"camera": video}), TASK, score_fps=SCORE_FPS)
    ]


@torch.inference_mode()
def as_published(runner: ModelRunner, video: Path, folder: Path) -> list[str]:
    """Texts of all moments. What they say is of no account: weights are random."""
    from transformers import GenerationConfig

    files = []
    with av.open(str(video)) as container:
        for k, frame in enumerate(container.decode(video=0)):
            files.append(folder / f"{k:06d}.jpg")
            cv2.imwrite(
                str(files[-1]),
                frame.to_ndarray(format="bgr24"),
                [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
            )
    chosen = files[:: FPS // SCORE_FPS]
    processor = runner.processor
    backbone = runner.model
    generation = GenerationConfig(
        max_new_tokens=ANSWER_TOKENS, min_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=0
    )
    prompt = processor.apply_chat_template(
        chat(progress_question(TASK, WINDOW.frames)), tokenize=False, add_generation_prompt=True
    )
    texts: list[str] = []
    for start in range(0, len(chosen), AT_ONCE):
        images = []
        ends = range(start, min(start + AT_ONCE, len(chosen)))
        for end in ends:
            window = [chosen[max(0, end - k)] for k in range(WINDOW.frames - 1, -1, -1)]
            images.append(
                [decode_picture(f.read_bytes(), runner.longest_px or VIDEO_PX) for f in window]
            )
        encoded = processor(
            text=[prompt] * len(ends),
            images=images,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        inputs = {k: v.to(backbone.device) for k, v in encoded.items()}
        reply_tokens = backbone.generate(**inputs, generation_config=generation)[
            :, inputs["input_ids"].shape[1] :
        ]
        assert reply_tokens.shape[1] == ANSWER_TOKENS
        texts += processor.tokenizer.batch_decode(reply_tokens)
    return texts


def timed[T](device: str, run: Callable[[], T]) -> tuple[float, T]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start_s = clock()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start_s, result


def figures(args: Namespace) -> Iterator[Figure]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    shared, unshared, runner, share = make_scorers(device)
    of_2b = true_size.make_backbone(TRUE, runner.processor.tokenizer, "meta")
    with tempfile.TemporaryDirectory(prefix="proccorpus-bench-") as spare:
        folder = Path(spare)
        frames = write_moving(folder / "run.mp4", args.moments)
        warm = folder / "warm.mp4"
        write_moving(warm, 9)
        for scorer in (shared, unshared):
            ours(scorer, warm)
        shared_s, first = timed(device, lambda: ours(shared, folder / "run.mp4"))
        unshared_s, second = timed(device, lambda: ours(unshared, folder / "run.mp4"))
        published_s, texts = timed(device, lambda: as_published(runner, folder / "run.mp4", folder))
    expect({len(first), len(second), len(texts)}, {args.moments}, "rewards")
    difference = float(np.abs(np.array(first) - np.array(second)).max())
    expect(
        difference <= TOLERANCE[device],
        True,
        f"a difference of {difference} is allowed",
    )
    name = "cpu, 1 thread"
    if device == "cuda":
        name = torch.cuda.get_device_name()
    note = f"{name}; {frames} frames; largest difference of a reward {difference:.1e}"
    yield Figure("vision shared", args.moments / shared_s, unit="rewards/s", note=note)
    parts = (
        f"the vision tower's part {share:.3f}, of Qwen3-VL-2B {vision_share(of_2b, VIDEO_PX):.3f}"
    )
    yield Figure("times as fast as not shared", unshared_s / shared_s, FLOOR_SHARED, note=parts)
    yield Figure("times as fast as the published loop", published_s / shared_s, FLOOR_PUBLISHED)


if __name__ == "__main__":
    measure(__doc__, figures, moments=48)
