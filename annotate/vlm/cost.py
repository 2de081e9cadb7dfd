"""The bill of annotating episodes, before any request is sent: calls, times the tokens that one takes.

Which questions follow which, and how many pictures they show, follows from the configuration and an
episode's length. Of what a model decides, and of how long texts are, the mean over hand-labelled
sets is taken, measured by `python -m benchmarks.vlm_bill`. Where the model has labelled episodes
before, what these took corrects the bill (`corrections`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, NamedTuple

import numpy as np

from annotate.config import VlmConfig
from annotate.model_client.tokens import ImageRule
from annotate.vlm.annotator import ATTEMPTS_PER_CALL, MOMENTS_PER_CALL, PLAN_PICTURES, chosen_frames
from annotate.vlm.pictures import sheet_size
from annotate.vlm.windows import TILES, shown_frames, windows
from core.values import grouped, spread


class CallTokens(NamedTuple):
    """Tokens of a call's texts and of its reply, and what each picture adds to them."""

    text: float
    text_per_picture: float
    reply: float
    reply_per_picture: float


# Of 45 hand-labelled runs with exact answers, by `python -m benchmarks.vlm_bill` (November 2026)
MEASURED = {
    "plan": CallTokens(690, 1, 90, 0),
    "segment": CallTokens(735, 1, 75, 1.5),
    "refine": CallTokens(545, 0, 20, 0),
    "verify": CallTokens(590, 10, 10, 18),
    "reason": CallTokens(460, 35, 2, 21),
}
STAGES = tuple(MEASURED)
IMAGE_TOKENS = 6.5  # of the line that tells the number and time of each image
SHEETS_TOKENS = 50  # of how contact sheets are explained
ATTEMPTS = 5  # per episode: steps that are tried, and so boundaries
PICTURES_PER_ATTEMPT = 3  # around its end
STRONG_SHARE = 0.2  # of the episodes: two passes differ, so that the strong model looks at it, too
MAX_BILLED = 300  # episodes; of more, as many that are spread over all lengths


@dataclass(frozen=True)
class KeyframeSeries:
    """The coarse keyframes that questions show: all that a bill depends on, and known before anything is asked."""

    num_frames: int  # of the episode
    fps: float
    frames: tuple[int, ...]  # of the keyframes
    width_px: int  # of the pictures that are shown; of several cameras, side by side
    height_px: int
    views: int = 1  # cameras side by side


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
class Prediction:
    episodes: int
    stages: Mapping[str, CallCost]
    gpu_hours: float  # by the price's token rates
    usd: float

    @property
    def total(self) -> CallCost:
        return total_of(self.stages.values())

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage and one for all, in whole calls and tokens."""
        costs = {**self.stages, "all": self.total}
        return [
            {"stage": stage} | {k: round(v) for k, v in cost._asdict().items()}
            for stage, cost in costs.items()
        ]

    def beside(self, calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Next to what was really sent (rows of vlm_calls), per stage and for all, with the relative error.

        Tokens are all that was paid for, also for questions without a usable reply: `lost` counts
        these.
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
    episodes: Sequence[KeyframeSeries],
    factors: Mapping[str, CallCost] | None = None,
    rule: ImageRule | None = None,
) -> Prediction:
    """The estimated cost of these episodes.

    factors: by stage, as `corrections` returns them. rule: how the model cuts pictures; default: as
    Qwen3-VL does.
    """
    by_length = sorted(episodes, key=lambda e: e.num_frames)
    billed = spread(by_length, MAX_BILLED)
    weight = len(episodes) / len(billed) if billed else 0.0
    stages = {
        stage: cost.times((factors or {}).get(stage, 1.0)).times(weight)
        for stage, cost in _bill(config, billed, rule or ImageRule()).items()
    }
    # What it costs: busy time counts where GPUs are paid by the hour, tokens where they are billed
    total = total_of(stages.values())
    busy_s = config.price.busy_s(total.prompt_tokens, total.completion_tokens)
    usd = config.price.usd(round(total.prompt_tokens), round(total.completion_tokens), busy_s)
    return Prediction(len(episodes), stages, busy_s / 3600 * config.price.gpus, usd)


def corrections(
    config: VlmConfig,
    episodes: Sequence[KeyframeSeries],
    calls: Iterable[Mapping[str, Any]],
    rule: ImageRule | None = None,
) -> dict[str, CallCost]:
    """By stage, what labelling these episodes took over what their bill says; empty where nothing was sent.

    calls: all that was sent for them. A stage that asked nothing costs nothing.
    """
    paid = costs_by_stage(call for call in calls if call["status"] == "ok")
    factors = {}
    for stage, billed in _bill(config, episodes, rule or ImageRule()).items() if paid else ():
        cost = paid.get(stage, CallCost())
        more_calls = cost.calls / billed.calls
        prompt = cost.prompt_tokens / billed.prompt_tokens
        reply = cost.completion_tokens / billed.completion_tokens
        factors[stage] = CallCost(more_calls, more_calls, more_calls, prompt, reply)
    return factors


def costs_by_stage(calls: Iterable[Mapping[str, Any]]) -> dict[str, CallCost]:
    """Rows of vlm_calls summed by stage. A call that several builds sent counts once."""
    unique_calls = {call["call_key"]: call for call in calls}.values()
    costs = grouped((c["stage"], _cost_of_row(c)) for c in unique_calls if c["stage"] in STAGES)
    return {stage: total_of(stage_costs) for stage, stage_costs in costs.items()}


def _cost_of_row(call: Mapping[str, Any]) -> CallCost:
    names = ("num_images", "prompt_tokens", "completion_tokens")
    images, prompt, completion = (call[name] or 0 for name in names)
    return CallCost(1, images, 0, prompt, completion)


def _bill(
    config: VlmConfig, episodes: Iterable[KeyframeSeries], rule: ImageRule
) -> dict[str, CallCost]:
    """The cost of each stage that asks something."""
    costs: dict[str, list[CallCost]] = {}
    for episode in episodes:
        for stage, calls in _pictures_of_calls(config, episode).items():
            costs.setdefault(stage, []).extend(
                _call_cost(stage, num_pictures, config, episode, rule) for num_pictures in calls
            )
    totals = {stage: total_of(stage_costs) for stage, stage_costs in costs.items() if stage_costs}
    is_gated = config.passes == 2 and bool(config.strong_model and config.gate_tolerance_s)
    if is_gated and "segment" in totals:
        totals["segment"] = totals["segment"].times(1 + STRONG_SHARE / 2)
    return totals


def _pictures_of_calls(config: VlmConfig, episode: KeyframeSeries) -> dict[str, list[int]]:
    """How many pictures each call about an episode shows, by stage."""
    frame_indices = shown_frames(episode.frames, episode.num_frames, episode.fps, config)
    calls = {
        "plan": [min(len(frame_indices), PLAN_PICTURES, config.max_images)],
        "segment": [len(window) for window in windows(frame_indices, config)] * config.passes,
    }
    if config.refine is True:
        # Each round leaves one of the stretches between its pictures
        between = max(2.0, episode.num_frames / len(frame_indices))
        rounds = math.ceil(math.log(between) / math.log(config.refine_images - 1))
        calls["refine"] = [config.refine_images] * (ATTEMPTS * rounds)
    if config.verify:
        per_call = [len(batch) for batch in batched(range(ATTEMPTS), ATTEMPTS_PER_CALL)]
        calls["verify"] = [
            min(len(frame_indices), PICTURES_PER_ATTEMPT * count) for count in per_call
        ]
    if config.reason:
        chosen = chosen_frames(frame_indices, episode.fps, config.reason_interval_s)
        calls["reason"] = [len(batch) for batch in batched(chosen, MOMENTS_PER_CALL)]
    return calls


def _call_cost(
    stage: str, num_pictures: int, config: VlmConfig, episode: KeyframeSeries, rule: ImageRule
) -> CallCost:
    """One call that shows so many pictures."""
    tokens = MEASURED[stage]
    text_tokens = tokens.text + tokens.text_per_picture * num_pictures
    size = (episode.width_px, episode.height_px)
    if config.contact_sheet and stage != "refine":
        sheets = [len(tiles) for tiles in batched(range(num_pictures), TILES)]
        sizes = [sheet_size(size, num_tiles, episode.views) for num_tiles in sheets]
        text_tokens += SHEETS_TOKENS
    else:
        sizes = [size] * num_pictures
    image_tokens = sum(rule.tokens(*image_size) for image_size in sizes)
    prompt_tokens = text_tokens + IMAGE_TOKENS * len(sizes) + image_tokens
    reply_tokens = tokens.reply + tokens.reply_per_picture * num_pictures
    return CallCost(1, len(sizes), image_tokens, prompt_tokens, reply_tokens)
