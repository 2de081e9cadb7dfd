"""Estimates of the cost of annotating episodes, before any request is sent.

The annotator itself runs, on blank pictures of the true sizes and with typical replies in place of a model's. So all
that configuration, prompts and schemas determine is exact: which questions follow which, what they show and say. What
a model decides is expected: how many steps it plans, how many changes it sees, how much it writes. Where the model has
labelled episodes before, these calibrate the expectation (`calibrated`).
"""

import asyncio
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from annotate.config import VlmConfig
from annotate.model_client.calls import Reply, Request
from annotate.model_client.reading import max_chars
from annotate.model_client.tokens import TokenMeter, blank
from annotate.vlm.annotator import annotate_episode, reason_episode
from annotate.vlm.pictures import EpisodeView
from core.domain.label import DONE
from core.values import spread

STAGES = ("plan", "segment", "refine", "verify", "reason")
MAX_REPLAYED = 300  # episodes; of more, as many that are spread over all lengths
GOLDEN = 0.618033988749895  # golden section: its multiples spread evenly over 0 .. 1, however many there are
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEF"  # as many as planned steps at most
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


class CallCost(NamedTuple):
    """Sums over calls. Also factors to multiply such sums by."""

    calls: float = 0.0
    images: float = 0.0
    image_tokens: float = 0.0  # a part of prompt_tokens
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    def times(self, factors: "CallCost | float") -> "CallCost":
        return CallCost(*np.multiply(self, factors).tolist())


def total_of(costs: Iterable[CallCost]) -> CallCost:
    return CallCost(*np.sum([CallCost(), *costs], axis=0).tolist())


@dataclass(frozen=True)
class Expected:
    """What a model decides. Defaults for a short task of a capable model."""

    steps: float = 4.0  # planned
    changes: float = 5.0  # boundaries per episode
    text_share: float = 0.5  # of the characters that free texts may have
    strong_share: float = (
        0.2  # episodes on which two passes differ, so that the strong model is asked
    )
    corrections: Mapping[str, CallCost] = field(
        default_factory=dict
    )  # by stage: what it took, over what was predicted


@dataclass(frozen=True)
class Prediction:
    episodes: int
    stages: Mapping[str, CallCost]
    gpu_hours: float  # by the price's token rates
    usd: float

    @property
    def total(self) -> CallCost:
        return total_of(self.stages.values())

    def __add__(self, addend: "Prediction") -> "Prediction":
        """Both together."""
        stages = [s for s in STAGES if s in self.stages or s in addend.stages]
        costs = {s: total_of(p.stages.get(s, CallCost()) for p in (self, addend)) for s in stages}
        hours = self.gpu_hours + addend.gpu_hours
        return Prediction(self.episodes + addend.episodes, costs, hours, self.usd + addend.usd)

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage and one for all, in whole calls and tokens."""
        costs = {**self.stages, "all": self.total}
        return [
            {"stage": stage} | {k: round(v) for k, v in cost._asdict().items()}
            for stage, cost in costs.items()
        ]

    def beside(self, calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Next to what was really sent (rows of vlm_calls), per stage and for all, with the relative error.

        Tokens are all that was paid for, also for questions without a usable reply: `lost` counts these.
        """
        paid = [call for call in calls if call["status"] != "sent"]
        true = costs_by_stage(paid)
        num_failed = Counter(call["stage"] for call in paid if call["status"] != "ok")
        num_failed["all"] = num_failed.total()
        true["all"] = total_of(true.values())
        rows = []
        predictions = {
            stage: self.stages.get(stage, CallCost())
            for stage in STAGES
            if stage in {*self.stages, *true}
        }
        for stage, predicted in {**predictions, "all": self.total}.items():
            row: dict[str, Any] = {"stage": stage, "lost": num_failed[stage]}
            for name in ("calls", "prompt_tokens", "completion_tokens"):
                expected = getattr(predicted, name)
                actual = getattr(true.get(stage, CallCost()), name)
                error = expected / actual - 1 if actual else None
                row |= {
                    name: round(actual),
                    f"{name}_predicted": round(expected),
                    f"{name}_error": error,
                }
            rows.append(row)
        return rows


def predict(
    config: VlmConfig,
    episodes: Sequence[EpisodeShape],
    expected: Expected | None = None,
    meter: TokenMeter | None = None,
) -> Prediction:
    """The estimated cost of these episodes. Must not be called inside a running event loop."""
    expected = expected or Expected()
    meter = meter or TokenMeter()
    by_length = sorted(episodes, key=lambda e: e.num_frames)
    replayed = spread(by_length, MAX_REPLAYED)
    costs: dict[str, CallCost] = dict.fromkeys(STAGES, CallCost())
    for number, episode in enumerate(replayed):
        for request, value in asyncio.run(replay(config, episode, expected, number)):
            image_tokens = sum(meter.image(image) for image in request.images)
            call = CallCost(
                1, len(request.images), image_tokens, meter.prompt(request), meter.reply(value)
            )
            costs[request.stage] = total_of((costs[request.stage], call))
    if (
        config.passes == 2 and config.strong_model and config.gate_tolerance_s
    ):  # a third look, now and then
        costs["segment"] = costs["segment"].times(1 + expected.strong_share / 2)

    # What the labelled episodes teach, then from the replayed episodes to all
    weight = len(episodes) / len(replayed) if replayed else 0.0
    stages = {
        stage: cost.times(expected.corrections.get(stage, 1.0)).times(weight)
        for stage, cost in costs.items()
        if cost.calls
    }
    # What it costs: busy time counts where GPUs are paid by the hour, tokens where they are billed
    total = total_of(stages.values())
    busy_s = config.price.busy_s(total.prompt_tokens, total.completion_tokens)
    usd = config.price.usd(round(total.prompt_tokens), round(total.completion_tokens), busy_s)
    return Prediction(len(episodes), stages, busy_s / 3600 * config.price.gpus, usd)


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
    first = Expected(steps, changes)
    predicted = predict(config, episodes, first, meter).stages
    corrections = {}
    for stage, true in costs_by_stage(call for call in calls if call["status"] == "ok").items():
        if stage in predicted:
            more_calls = true.calls / predicted[stage].calls
            factors = (t / p for t, p in zip(true[3:], predicted[stage][3:], strict=True))
            corrections[stage] = CallCost(more_calls, more_calls, more_calls, *factors)
    return replace(first, corrections=corrections)


def costs_by_stage(calls: Iterable[Mapping[str, Any]]) -> dict[str, CallCost]:
    """Rows of vlm_calls summed by stage. A call that several builds sent counts once."""
    costs: dict[str, CallCost] = {}
    for call in {call["call_key"]: call for call in calls}.values():
        if call["stage"] in STAGES:
            numbers = (
                call[name] or 0 for name in ("num_images", "prompt_tokens", "completion_tokens")
            )
            images, prompt, completion = numbers
            costs[call["stage"]] = total_of(
                (costs.get(call["stage"], CallCost()), CallCost(1, images, 0, prompt, completion))
            )
    return costs


async def replay(
    config: VlmConfig, episode: EpisodeShape, expected: Expected, number: int = 0
) -> list[tuple[Request, dict[str, Any]]]:
    """The requests that the annotator sends for an episode, each with its typical reply.

    `number` counts the episodes, so that numbers between two whole ones are met on average.
    """
    # The size of a picture decides its tokens, what it shows does not
    picture = blank(episode.width_px, episode.height_px)
    unlike = np.random.default_rng(0).integers(0, 2**64, episode.num_frames, np.uint64)
    view = EpisodeView(
        dataset="",
        episode_index=number,
        task=episode.task,
        fps=episode.fps,
        num_frames=episode.num_frames,
        success=episode.success,
        frames=episode.frames,
        load=lambda frames: dict.fromkeys(frames, picture),
        phash=episode.phash() if episode.phash else unlike,
        cameras=episode.cameras,
    )

    # Rounded so that the mean over numbers 0, 1, 2 ... is what is expected: 4.5 with numbers 0 .. 3 gives 4, 5, 4, 5
    chance = (number * GOLDEN) % 1.0
    steps = min(config.max_steps, max(2, math.floor(expected.steps + chance)))
    cuts = max(1, math.floor(expected.changes + chance))
    requests: list[tuple[Request, dict[str, Any]]] = []

    async def ask(request: Request) -> Reply:
        assert request.schema is not None
        if request.stage == "segment":
            value = _segments(request, cuts, steps, episode.num_frames, expected.text_share)
        else:
            value = _typical(request.schema, expected.text_share, steps)
        requests.append((request, value))
        return Reply("", value, 0, 0, 0.0, cached=False)

    label = await annotate_episode(view, ask, config)
    if config.reason:
        await reason_episode(view, label.segments, label.num_planned, ask, config)
    return requests


def _typical(schema: Mapping[str, Any], share: float, items: int) -> Any:
    """A valid value: choices in the middle, `items` entries in lists, texts of `share` of their length."""
    # The choice in the middle is about as long as a choice is on average
    if "enum" in schema:
        return schema["enum"][len(schema["enum"]) // 2]
    match schema["type"]:
        case "object":
            return {
                name: _typical(part, share, items) for name, part in schema["properties"].items()
            }
        case "array":
            # Each with another object than the others': planned steps that are alike would be merged
            entries = [_typical(schema["items"], share, items) for _ in range(items)]
            return [
                entry | {"object": (letter + entry["object"])[: len(entry["object"])]}
                if "object" in entry
                else entry
                for letter, entry in zip(LETTERS, entries, strict=False)
            ]
        case "string":
            length = max(1, round(share * max_chars(schema)))
            return (WORDS * (length // len(WORDS) + 1))[:length]
    return True


def _segments(
    request: Request, cuts: int, steps: int, num_frames: int, share: float
) -> dict[str, Any]:
    """A reply that sees changes at even distances over the episode: windows of one episode agree."""
    assert request.schema is not None
    properties = request.schema["properties"]
    change = properties["changes"]["items"]["properties"]
    pictures = change["picture"][
        "enum"
    ]  # their numbers are frames; the first one is not among them
    first = int(re.findall(r"\d+", str(request.content[1]))[0])

    def activity(number: int) -> dict[str, str]:
        """After that many changes: the steps in their order, again and again; done at the end."""
        is_done = number == cuts and number >= steps
        label = DONE if is_done else str(number % steps + 1)
        return {"label": label, "outcome": change["outcome"]["enum"][0]}

    change_at: dict[int, dict[str, Any]] = {}  # by picture
    num_changes = 0  # changes before the window
    for number in range(1, cuts + 1):
        frame = num_frames * number / (cuts + 1)
        if frame <= first:
            num_changes = number
        elif frame <= pictures[-1]:
            picture = pictures[bisect_left(pictures, frame)]
            change_at[picture] = {"picture": picture} | activity(number)
    # A reply that needs a change has one at its last picture
    if not change_at and properties["changes"]["minItems"]:
        change_at[pictures[-1]] = {"picture": pictures[-1]} | activity(num_changes + 1)
    changes = list(change_at.values())[: properties["changes"]["maxItems"]]
    return {
        "seen": _typical(properties["seen"], share, 0),
        "first": activity(num_changes),
        "changes": changes,
    }
