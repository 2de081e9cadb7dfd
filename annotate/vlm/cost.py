"""What annotating episodes will cost, before anything is asked.

The annotator itself runs, on blank pictures of the true sizes and with typical replies in place of a model's. So all
that configuration, prompts and schemas determine is exact: which questions follow which, what they show and say. What
a model decides is expected: how many steps it plans, how many changes it sees, how much it writes. Where the model has
labelled episodes before, these calibrate the expectation (`calibrated`).
"""

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from annotate.model_client.calls import Image, Reply, Request
from annotate.model_client.ledger import cost_usd
from annotate.model_client.tokens import Meter, blank
from annotate.segments import DONE
from annotate.vlm.annotator import annotate_episode
from annotate.vlm.config import VlmConfig
from annotate.vlm.reason import reason_episode
from annotate.vlm.schemas import max_chars
from annotate.vlm.view import EpisodeView

STAGES = ("plan", "segment", "refine", "verify", "reason")
MAX_REPLAYED = 300  # episodes; of more, as many that are spread over all lengths
GOLDEN = 0.618033988749895
STRETCH = re.compile(r"from ([\d.]+) s to ([\d.]+) s")  # how a request's first text begins
WORDS = "the gripper closes on the red block and lifts it above the table near the plate "


@dataclass(frozen=True)
class EpisodeShape:
    """What an episode's questions depend on and is known before it is annotated."""

    num_frames: int
    fps: float
    frames: tuple[int, ...]  # of the coarse keyframes
    width_px: int  # of the pictures that are shown
    height_px: int
    task: str | None
    success: bool | None = None
    # uint64 [num_frames]; None: no two pictures are taken to be alike. Called for the episodes that are replayed only
    phash: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Correction:
    """What a stage took, over what was predicted."""

    calls: float = 1.0
    prompt_tokens: float = 1.0  # per call
    completion_tokens: float = 1.0  # per call


@dataclass(frozen=True)
class Expected:
    """What a model decides. Defaults for a short task of a capable model."""

    steps: float = 4.0  # planned
    changes: float = 5.0  # boundaries per episode
    text_share: float = 0.5  # of the characters that free texts may have
    strong_share: float = 0.2  # episodes on which two passes differ, so that the strong model is asked
    corrections: Mapping[str, Correction] = field(default_factory=dict)  # by stage


@dataclass(frozen=True)
class StageCost:
    stage: str
    calls: float = 0.0
    images: float = 0.0
    image_tokens: float = 0.0  # a part of prompt_tokens
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0


@dataclass(frozen=True)
class Prediction:
    episodes: int
    stages: tuple[StageCost, ...]
    gpu_hours: float  # by the price's token rates
    usd: float

    @property
    def total(self) -> StageCost:
        sums = {k: sum(getattr(s, k) for s in self.stages) for k in StageCost.__dataclass_fields__ if k != "stage"}
        return StageCost("all", **sums)

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage and one for all, in whole calls and tokens."""
        return [{k: v if k == "stage" else round(v) for k, v in s.__dict__.items()} for s in (*self.stages, self.total)]

    def beside(self, calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Next to what was really sent (rows of vlm_calls), per stage and for all, with the relative error."""
        true = {s.stage: s for s in sent(calls)}
        true["all"] = Prediction(0, tuple(true.values()), 0.0, 0.0).total
        rows = []
        for s in (*self.stages, self.total):
            row: dict[str, Any] = {"stage": s.stage}
            for k in ("calls", "prompt_tokens", "completion_tokens"):
                told, was = getattr(s, k), getattr(true.get(s.stage, StageCost(s.stage)), k)
                row |= {k: round(was), f"{k}_predicted": round(told), f"{k}_error": told / was - 1 if was else None}
            rows.append(row)
        return rows


def predict(
    config: VlmConfig, episodes: Sequence[EpisodeShape], expected: Expected | None = None, meter: Meter | None = None
) -> Prediction:
    """What these episodes will take. Not to be called inside a running event loop."""
    expected, meter = expected or Expected(), meter or Meter()
    chosen = sorted(episodes, key=lambda e: e.num_frames)
    if len(chosen) > MAX_REPLAYED:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, MAX_REPLAYED).round().astype(int)]
    costs = {s: StageCost(s) for s in STAGES}

    async def replay_all() -> None:
        for number, episode in enumerate(chosen):
            for request, value in await replay(config, episode, expected, number):
                costs[request.stage] = _plus(costs[request.stage], request, value, meter)

    asyncio.run(replay_all())
    weight = len(episodes) / len(chosen) if chosen else 0.0
    if config.passes == 2 and config.strong_model and config.gate_tolerance_s:  # a third look, now and then
        costs["segment"] = _scaled(costs["segment"], 1 + expected.strong_share / 2)
    stages = tuple(
        _scaled(_corrected(c, expected.corrections.get(c.stage, Correction())), weight)
        for c in costs.values()
        if c.calls
    )
    all_ = Prediction(len(episodes), stages, 0.0, 0.0).total
    p = config.price
    busy_s = all_.prompt_tokens / p.prompt_tokens_per_s + all_.completion_tokens / p.completion_tokens_per_s
    usd = cost_usd(p, round(all_.prompt_tokens), round(all_.completion_tokens), busy_s)
    return Prediction(len(episodes), stages, busy_s / 3600 * p.gpus, usd)


def calibrated(
    config: VlmConfig,
    episodes: Sequence[EpisodeShape],
    steps: float,
    changes: float,
    calls: Iterable[Mapping[str, Any]],
    meter: Meter | None = None,
) -> Expected:
    """The expectation by which the prediction for `episodes` equals what labelling them took.

    `steps` and `changes`: their means over these episodes; `calls`: all that was sent for them (rows of vlm_calls).
    """
    first = Expected(steps, changes)
    told = {s.stage: s for s in predict(config, episodes, first, meter).stages}
    corrections = {}
    for true in sent(calls):
        if (s := told.get(true.stage)) and true.calls:
            corrections[true.stage] = Correction(
                true.calls / s.calls,
                (true.prompt_tokens / true.calls) / (s.prompt_tokens / s.calls),
                (true.completion_tokens / true.calls) / (s.completion_tokens / s.calls),
            )
    return replace(first, corrections=corrections)


def sent(calls: Iterable[Mapping[str, Any]]) -> tuple[StageCost, ...]:
    """Rows of vlm_calls summed by stage. A call that several builds sent counts once, as it was answered."""
    last = {c["call_key"]: c for c in calls if c["status"] == "ok"}
    costs = {s: StageCost(s) for s in STAGES}
    for c in last.values():
        if s := costs.get(c["stage"]):
            costs[c["stage"]] = replace(
                s,
                calls=s.calls + 1,
                images=s.images + (c["num_images"] or 0),
                prompt_tokens=s.prompt_tokens + (c["prompt_tokens"] or 0),
                completion_tokens=s.completion_tokens + (c["completion_tokens"] or 0),
            )
    return tuple(s for s in costs.values() if s.calls)


async def replay(
    config: VlmConfig, episode: EpisodeShape, expected: Expected, number: int = 0
) -> list[tuple[Request, dict[str, Any]]]:
    """The requests that the annotator sends for an episode, each with its typical reply.

    `number` counts the episodes, so that numbers between two whole ones are met on average.
    """
    picture = blank(episode.width_px, episode.height_px)
    unlike = np.random.default_rng(0).integers(0, 2**64, episode.num_frames, np.uint64)

    def load(frames: Sequence[int]) -> Mapping[int, Image]:
        return dict.fromkeys(frames, picture)

    view = EpisodeView(
        dataset="",
        episode_index=number,
        task=episode.task,
        fps=episode.fps,
        num_frames=episode.num_frames,
        success=episode.success,
        frames=episode.frames,
        load=load,
        phash=episode.phash() if episode.phash else unlike,
    )
    steps = min(config.max_steps, max(2, _whole(expected.steps, number)))
    cuts = max(1, _whole(expected.changes, number))
    asked: list[tuple[Request, dict[str, Any]]] = []

    async def ask(request: Request) -> Reply:
        assert request.schema is not None
        if request.stage == "segment":
            value = _segments(request, cuts, steps, episode.num_frames / episode.fps, expected.text_share)
        else:
            value = _typical(request.schema, expected.text_share, steps)
        asked.append((request, value))
        return Reply("", value, 0, 0, 0.0, cached=False)

    label = await annotate_episode(view, ask, config)
    if config.reason:
        await reason_episode(view, label.segments, label.num_planned, ask, config)
    return asked


def _typical(schema: Mapping[str, Any], share: float, items: int) -> Any:
    """A valid value: choices in the middle, `items` entries in lists, texts of `share` of their length."""
    if "enum" in schema:
        return schema["enum"][len(schema["enum"]) // 2]
    match schema["type"]:
        case "object":
            return {k: _typical(v, share, items) for k, v in schema["properties"].items()}
        case "array":
            made = [_typical(schema["items"], share, items) for _ in range(items)]
            for k, (item, name) in enumerate(zip(made, "abcdefghijklmnop", strict=False)):
                if "object" in item:  # planned steps differ, or they would be merged
                    made[k] = item | {"object": (name + item["object"])[: len(item["object"])]}
            return made
        case "string":
            return _text(max(1, round(share * max_chars(schema))))
    return True


def _segments(request: Request, cuts: int, steps: int, duration_s: float, share: float) -> dict[str, Any]:
    """A reply that sees changes at even distances over the episode: windows of one episode agree."""
    assert request.schema is not None
    properties = request.schema["properties"]
    change = properties["changes"]["items"]["properties"]
    pictures = change["picture"]["enum"][-1]
    opening = STRETCH.search(str(request.content[0]))
    start, end = (float(t) for t in opening.groups()) if opening else (0.0, duration_s)

    def label(k: int) -> str:
        return DONE if k == cuts and k >= steps else str(k % steps + 1)

    def told(k: int) -> dict[str, str]:
        return {"label": label(k), "outcome": change["outcome"]["enum"][0]}

    at: dict[int, dict[str, Any]] = {}
    before = 0
    for k in range(1, cuts + 1):
        time = duration_s * k / (cuts + 1)
        if time <= start:
            before = k
        elif time <= end:
            picture = math.ceil((time - start) / (end - start) * (pictures - 1)) + 1
            at[picture] = {"picture": picture} | told(k)
    if not at and properties["changes"]["minItems"]:
        at[pictures] = {"picture": pictures} | told(before + 1)
    seen = _typical(properties["seen"], share, 0)
    return {"seen": seen, "first": told(before), "changes": list(at.values())[: properties["changes"]["maxItems"]]}


def _text(length: int) -> str:
    return (WORDS * (length // len(WORDS) + 1))[:length]


def _whole(x: float, number: int) -> int:
    """x rounded down or up, so that the mean over numbers 0, 1, 2 ... is x."""
    return math.floor(x + (number * GOLDEN) % 1.0)


def _plus(cost: StageCost, request: Request, value: dict[str, Any], meter: Meter) -> StageCost:
    return StageCost(
        cost.stage,
        cost.calls + 1,
        cost.images + len(request.images),
        cost.image_tokens + sum(meter.image(i) for i in request.images),
        cost.prompt_tokens + meter.prompt(request),
        cost.completion_tokens + meter.reply(value),
    )


def _scaled(cost: StageCost, factor: float) -> StageCost:
    return StageCost(cost.stage, *(v * factor for k, v in cost.__dict__.items() if k != "stage"))


def _corrected(cost: StageCost, by: Correction) -> StageCost:
    scaled = _scaled(cost, by.calls)
    return replace(
        scaled,
        prompt_tokens=scaled.prompt_tokens * by.prompt_tokens,
        completion_tokens=scaled.completion_tokens * by.completion_tokens,
    )
