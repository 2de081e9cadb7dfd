"""How near the bill of `build --dry-run` comes: what the runs of a set take, by what its first ones took.

    python -m benchmarks.vlm_bill [--data FOLDER] [--workspace W] [--dataset NAME ...]

An exact stand-in (benchmarks.vlm_stand_in) answers all questions about the runs of each hand-labelled set, with default
settings. Prints by set the calls and tokens, and how far the mean of its first runs is off.
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from annotate.config import VlmConfig
from annotate.model_client.calls import Reply, Request
from annotate.model_client.tokens import prompt_tokens
from annotate.vlm.annotator import annotate_episode
from benchmarks.hand_labels import HandLabelled, labelled_sets, view_of
from benchmarks.harness import table_text, trial_workspace
from benchmarks.label_truth import hand_labelled, names
from benchmarks.vlm_other_ways import reply_tokens
from benchmarks.vlm_stand_in import Mistakes, StandIn

ASKED_FIRST = 4


def tokens_of(run: HandLabelled, config: VlmConfig) -> list[int]:
    """Of each question that labelling a run takes, the tokens with its reply."""
    view = view_of(run, success=run.truth.success)
    model = StandIn(run.truth, Mistakes(), np.random.default_rng(0))
    tokens = []

    async def ask(request: Request) -> Reply:
        reply = await model(request)
        tokens.append(prompt_tokens(request) + reply_tokens(reply.value))
        return reply

    asyncio.run(annotate_episode(view, ask, config))
    return tokens


def set_row(name: str, runs: Sequence[HandLabelled]) -> list[str]:
    by_run = [tokens_of(run, VlmConfig()) for run in runs]
    row = [name, str(len(runs))]
    for taken in (np.array([len(tokens) for tokens in by_run]), np.array(list(map(sum, by_run)))):
        off = taken[:ASKED_FIRST].mean() / taken.mean() - 1
        row += [str(taken.sum()), f"{off:+.0%}"]
    return row


def main() -> None:
    args = hand_labelled(__doc__).parse_args()
    with trial_workspace(args.workspace) as space:
        sets = labelled_sets(space, args.data, names(args))
        rows = [set_row(name, runs) for name, runs in sets.items()]
    print(table_text(["set", "runs", "calls", "bill", "tokens", "bill"], rows))


if __name__ == "__main__":
    main()
