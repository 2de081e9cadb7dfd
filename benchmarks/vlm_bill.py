"""How near the bill of `dry-run` comes to what the annotator asks, before anything is labelled.

    python -m benchmarks.vlm_bill [--data FOLDER] [--workspace W] [--dataset NAME ...]

An exact stand-in (benchmarks.vlm_stand_in) answers all questions about the runs of each hand-labelled set, with default
settings. Prints by set the calls and tokens, and how far the bill is off. The last table is what `MEASURED` of
annotate/vlm/cost.py says: by stage the mean tokens of texts and of replies, and the pictures that they are about.
"""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from annotate.config import VlmConfig
from annotate.model_client.calls import Reply, Request
from annotate.model_client.tokens import image_tokens, prompt_tokens, reply_tokens
from annotate.vlm.annotator import annotate_episode, reason_episode
from annotate.vlm.cost import STAGES, KeyframeSeries, predict
from benchmarks.hand_labels import SIZE_PX, HandLabelled, labelled_sets, view_of
from benchmarks.harness import table_text, trial_workspace
from benchmarks.label_truth import hand_labelled, names
from benchmarks.vlm_stand_in import Mistakes, StandIn


class Call(NamedTuple):
    """What one question took. text: prompt tokens that are of no picture."""

    stage: str
    images: int
    text: int
    prompt: int
    reply: int


def calls_of(run: HandLabelled, config: VlmConfig) -> tuple[KeyframeSeries, list[Call]]:
    """What is known of a run before it is labelled, and the questions that labelling it takes."""
    view = view_of(run, success=run.truth.success)
    model = StandIn(run.truth, Mistakes(), np.random.default_rng(0))
    calls = []

    async def ask(request: Request) -> Reply:
        reply = await model(request)
        prompt = prompt_tokens(request)
        text = prompt - sum(image_tokens(image) for image in request.images)
        images = len(request.images)
        calls.append(Call(request.stage, images, text, prompt, reply_tokens(reply.value)))
        return reply

    async def label() -> None:
        annotated = await annotate_episode(view, ask, config)
        if config.reason:
            await reason_episode(view, annotated.segments, annotated.num_planned, ask, config)

    asyncio.run(label())
    return KeyframeSeries(view.num_frames, view.fps, view.frames, *SIZE_PX), calls


def set_row(
    name: str, runs: Sequence[HandLabelled], config: VlmConfig
) -> tuple[list[str], list[Call]]:
    """A set's row of the table, and its calls."""
    measured = [calls_of(run, config) for run in runs]
    bill = predict(config, [shape for shape, _ in measured]).total
    calls = list(chain.from_iterable(run_calls for _, run_calls in measured))
    tokens = sum(call.prompt + call.reply for call in calls)
    calls_off = f"{bill.calls / len(calls) - 1:+.0%}"
    tokens_off = f"{(bill.prompt_tokens + bill.completion_tokens) / tokens - 1:+.0%}"
    row = [name, str(len(runs)), str(len(calls)), calls_off, str(tokens), tokens_off]
    return row, calls


def main() -> None:
    args = hand_labelled(__doc__).parse_args()
    config = VlmConfig()
    rows = []
    all_calls = []
    with trial_workspace(args.workspace) as space:
        for name, runs in labelled_sets(space, args.data, names(args)).items():
            row, calls = set_row(name, runs, config)
            rows.append(row)
            all_calls += calls
    print(table_text(["set", "runs", "calls", "bill", "tokens", "bill"], rows))
    stages = []
    for stage in STAGES:
        stage_calls = [call for call in all_calls if call.stage == stage]
        if stage_calls:
            means = np.mean([call[1:] for call in stage_calls], axis=0)
            stages.append([stage, str(len(stage_calls)), *(f"{mean:.1f}" for mean in means)])
    print(table_text(["stage", "calls", "images", "text", "prompt", "reply"], stages))


if __name__ == "__main__":
    main()
