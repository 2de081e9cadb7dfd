"""Estimates of the cost of annotating episodes, before any request is sent.

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
from annotate.model_client.tokens import TokenMeter, blank
from annotate.segments import DONE
from annotate.vlm.annotator import annotate_episode
from annotate.vlm.config import VlmConfig
from annotate.vlm.reason import reason_episode
from annotate.vlm.schemas import max_chars
from annotate.vlm.view import EpisodeView

STAGES = ("plan", "segment", "refine", "verify", "reason")
MAX_REPLAYED = 300  # episodes; of more, as many that are spread over all lengths
GOLDEN = 0.618033988749895  # golden section: its multiples spread evenly over 0 .. 1, however many there are
LETTERS = "abcdefghijklmnop"  # as many as planned steps at most
STRETCH = re.compile(r"from ([\d.]+) s to ([\d.]+) s")  # how a request's first text begins
# The text of a typical reply, as often as its length needs
WORDS = "the gripper closes on the red block and lifts it above the table near the plate "


@dataclass(frozen=True)
class EpisodeShape:
    """What an episode's questions depend on and is known before it is annotated."""

    num_frames: int
    fps: float
    frames: tuple[int, ...]  # of the coarse keyframes
    width_px: int  # of the pictures that are shown; of several cameras, side by side
    height_px: int
    task: str | None
    success: bool | None = None
    # uint64 [num_frames]; None: no two pictures are taken to be alike. Called for the episodes that are replayed only
    phash: Callable[[], np.ndarray] | None = None
    cameras: tuple[str, ...] = ()  # side by side; empty: one


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
    """Sums over the calls of a stage. `stage` comes first, the counts after it."""

    stage: str
    calls: float = 0.0
    images: float = 0.0
    image_tokens: float = 0.0  # a part of prompt_tokens
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    def counts(self) -> dict[str, float]:
        return {name: value for name, value in self.__dict__.items() if name != "stage"}

    def scaled(self, factor: float) -> "StageCost":
        return StageCost(self.stage, **{name: value * factor for name, value in self.counts().items()})

    def corrected(self, by: Correction) -> "StageCost":
        scaled = self.scaled(by.calls)
        return replace(
            scaled,
            prompt_tokens=scaled.prompt_tokens * by.prompt_tokens,
            completion_tokens=scaled.completion_tokens * by.completion_tokens,
        )

    def with_call(self, request: Request, value: dict[str, Any], meter: TokenMeter) -> "StageCost":
        """One call more, which is answered by `value`."""
        return StageCost(
            self.stage,
            self.calls + 1,
            self.images + len(request.images),
            self.image_tokens + sum(meter.image(image) for image in request.images),
            self.prompt_tokens + meter.prompt(request),
            self.completion_tokens + meter.reply(value),
        )

    def with_sent(self, call: Mapping[str, Any]) -> "StageCost":
        """One call more, which was really sent (a row of vlm_calls)."""
        return replace(
            self,
            calls=self.calls + 1,
            images=self.images + (call["num_images"] or 0),
            prompt_tokens=self.prompt_tokens + (call["prompt_tokens"] or 0),
            completion_tokens=self.completion_tokens + (call["completion_tokens"] or 0),
        )


def total_of(stages: Sequence[StageCost]) -> StageCost:
    """The stages' sum, as the stage "all"."""
    names = StageCost("all").counts()
    return StageCost("all", **{name: sum(getattr(stage, name) for stage in stages) for name in names})


@dataclass(frozen=True)
class Prediction:
    episodes: int
    stages: tuple[StageCost, ...]
    gpu_hours: float  # by the price's token rates
    usd: float

    @property
    def total(self) -> StageCost:
        return total_of(self.stages)

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage and one for all, in whole calls and tokens."""
        return [{"stage": s.stage} | {k: round(v) for k, v in s.counts().items()} for s in (*self.stages, self.total)]

    def beside(self, calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Next to what was really sent (rows of vlm_calls), per stage and for all, with the relative error."""
        true = {s.stage: s for s in costs_by_stage(calls)}
        true["all"] = total_of(tuple(true.values()))
        rows = []
        for predicted in (*self.stages, self.total):
            sent = true.get(predicted.stage, StageCost(predicted.stage))
            rows.append(_compared(predicted, sent))
        return rows


def _compared(predicted: StageCost, sent: StageCost) -> dict[str, Any]:
    """A row of the prediction beside what was sent; no error where nothing was."""
    row: dict[str, Any] = {"stage": predicted.stage}
    for name in ("calls", "prompt_tokens", "completion_tokens"):
        expected, actual = getattr(predicted, name), getattr(sent, name)
        row[name] = round(actual)
        row[f"{name}_predicted"] = round(expected)
        row[f"{name}_error"] = expected / actual - 1 if actual else None
    return row


def predict(
    config: VlmConfig,
    episodes: Sequence[EpisodeShape],
    expected: Expected | None = None,
    meter: TokenMeter | None = None,
) -> Prediction:
    """The estimated cost of these episodes. Must not be called inside a running event loop."""
    expected, meter = expected or Expected(), meter or TokenMeter()
    replayed = _spread_over_lengths(episodes)
    costs = asyncio.run(_replayed_costs(config, replayed, expected, meter))
    if config.passes == 2 and config.strong_model and config.gate_tolerance_s:  # a third look, now and then
        costs["segment"] = costs["segment"].scaled(1 + expected.strong_share / 2)

    # What the labelled episodes teach, then from the replayed episodes to all
    weight = len(episodes) / len(replayed) if replayed else 0.0
    stages = tuple(
        cost.corrected(expected.corrections.get(cost.stage, Correction())).scaled(weight)
        for cost in costs.values()
        if cost.calls
    )
    # What it costs: busy time counts where GPUs are paid by the hour, tokens where they are billed
    total = total_of(stages)
    price = config.price
    busy_s = price.busy_s(total.prompt_tokens, total.completion_tokens)
    usd = price.usd(round(total.prompt_tokens), round(total.completion_tokens), busy_s)
    return Prediction(len(episodes), stages, busy_s / 3600 * price.gpus, usd)


def _spread_over_lengths(episodes: Sequence[EpisodeShape]) -> list[EpisodeShape]:
    """All episodes; of more than MAX_REPLAYED, as many that are spread over all lengths."""
    by_length = sorted(episodes, key=lambda e: e.num_frames)
    if len(by_length) <= MAX_REPLAYED:
        return by_length
    return [by_length[k] for k in np.linspace(0, len(by_length) - 1, MAX_REPLAYED).round().astype(int)]


async def _replayed_costs(
    config: VlmConfig, episodes: Sequence[EpisodeShape], expected: Expected, meter: TokenMeter
) -> dict[str, StageCost]:
    costs = {stage: StageCost(stage) for stage in STAGES}
    for number, episode in enumerate(episodes):
        for request, value in await replay(config, episode, expected, number):
            costs[request.stage] = costs[request.stage].with_call(request, value, meter)
    return costs


def calibrated(
    config: VlmConfig,
    episodes: Sequence[EpisodeShape],
    steps: float,
    changes: float,
    calls: Iterable[Mapping[str, Any]],
    meter: TokenMeter | None = None,
) -> Expected:
    """The expectation by which the prediction for `episodes` equals what labelling them took.

    `steps` and `changes`: their means over these episodes; `calls`: all that was sent for them (rows of vlm_calls).
    """
    # What each stage took over what would have been predicted for it
    first = Expected(steps, changes)
    predicted = {s.stage: s for s in predict(config, episodes, first, meter).stages}
    corrections = {}
    for true in costs_by_stage(calls):
        # Per call and not in all: how many calls there are and how long each is are corrected apart
        stage = predicted.get(true.stage)
        if stage and true.calls:
            corrections[true.stage] = Correction(
                true.calls / stage.calls,
                (true.prompt_tokens / true.calls) / (stage.prompt_tokens / stage.calls),
                (true.completion_tokens / true.calls) / (stage.completion_tokens / stage.calls),
            )
    return replace(first, corrections=corrections)


def costs_by_stage(calls: Iterable[Mapping[str, Any]]) -> tuple[StageCost, ...]:
    """Rows of vlm_calls summed by stage. A call that several builds sent counts once, as it was answered."""
    answered = {call["call_key"]: call for call in calls if call["status"] == "ok"}
    costs = {stage: StageCost(stage) for stage in STAGES}
    for call in answered.values():
        stage = call["stage"]
        if stage in costs:
            costs[stage] = costs[stage].with_sent(call)
    return tuple(cost for cost in costs.values() if cost.calls)


async def replay(
    config: VlmConfig, episode: EpisodeShape, expected: Expected, number: int = 0
) -> list[tuple[Request, dict[str, Any]]]:
    """The requests that the annotator sends for an episode, each with its typical reply.

    `number` counts the episodes, so that numbers between two whole ones are met on average.
    """
    # The size of a picture decides its tokens, what it shows does not
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
        cameras=episode.cameras,
    )

    # The annotator itself asks; what it asks is kept, with the reply that it is given
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
    # The choice in the middle is about as long as a choice is on average
    if "enum" in schema:
        return schema["enum"][len(schema["enum"]) // 2]
    match schema["type"]:
        case "object":
            return {name: _typical(part, share, items) for name, part in schema["properties"].items()}
        case "array":
            return [_with_other_object(_typical(schema["items"], share, items), letter) for letter in LETTERS[:items]]
        case "string":
            return _text(max(1, round(share * max_chars(schema))))
    return True


def _with_other_object(item: dict[str, Any], letter: str) -> dict[str, Any]:
    """The entry of a list, with another object than the others': planned steps that are alike would be merged."""
    if "object" not in item:
        return item
    length = len(item["object"])
    return item | {"object": (letter + item["object"])[:length]}


def _segments(request: Request, cuts: int, steps: int, duration_s: float, share: float) -> dict[str, Any]:
    """A reply that sees changes at even distances over the episode: windows of one episode agree."""
    assert request.schema is not None
    properties = request.schema["properties"]
    change = properties["changes"]["items"]["properties"]
    num_pictures = change["picture"]["enum"][-1]
    start, end = _stretch_s(request, duration_s)

    def activity(number: int) -> dict[str, str]:
        """After that many changes: the steps in their order, again and again; done at the end."""
        is_done = number == cuts and number >= steps
        label = DONE if is_done else str(number % steps + 1)
        return {"label": label, "outcome": change["outcome"]["enum"][0]}

    # In the pictures of this window: it may show only a stretch of the episode
    change_at: dict[int, dict[str, Any]] = {}  # by picture
    before = 0  # changes before the window
    for number in range(1, cuts + 1):
        time = duration_s * number / (cuts + 1)
        if time <= start:
            before = number
        elif time <= end:
            picture = math.ceil((time - start) / (end - start) * (num_pictures - 1)) + 1
            change_at[picture] = {"picture": picture} | activity(number)
    # A reply that needs a change has one at its last picture
    if not change_at and properties["changes"]["minItems"]:
        change_at[num_pictures] = {"picture": num_pictures} | activity(before + 1)
    changes = list(change_at.values())[: properties["changes"]["maxItems"]]
    return {"seen": _typical(properties["seen"], share, 0), "first": activity(before), "changes": changes}


def _stretch_s(request: Request, duration_s: float) -> tuple[float, float]:
    """From when to when a request shows the episode: all of it, unless its first text says otherwise."""
    stretch = STRETCH.search(str(request.content[0]))
    if stretch is None:
        return 0.0, duration_s
    start, end = stretch.groups()
    return float(start), float(end)


def _text(length: int) -> str:
    return (WORDS * (length // len(WORDS) + 1))[:length]


def _whole(x: float, number: int) -> int:
    """x rounded down or up, so that the mean over numbers 0, 1, 2 ... is x.

    Example: of 4.5 with the numbers 0 .. 3 it makes 4, 5, 4, 5.
    """
    return math.floor(x + (number * GOLDEN) % 1.0)
