"""How near the bill of `build --dry-run` comes: what all runs take, by what the first ones took.

    python -m benchmarks.vlm_bill [--data FOLDER] [--workspace W] [--dataset NAME ...]

An exact stand-in (benchmarks.vlm_stand_in) answers all questions about the runs of the hand-labelled sets, with default
settings. Prints calls and tokens of each set; and, of many draws of some runs out of all, how far their mean is off.
"""

import asyncio

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

ASKED_FIRST = (10, 20)
DRAWS = 2000


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


def errors(tokens: np.ndarray, num_asked: int) -> np.ndarray:
    """How far the mean of so many drawn runs is from that of all, as a share of it: [DRAWS]."""
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(tokens)[:num_asked].mean() for _ in range(DRAWS)]
    return abs(np.array(drawn) / tokens.mean() - 1)


def main() -> None:
    args = hand_labelled(__doc__)
    rows = []
    by_run = []
    with trial_workspace(args.workspace) as space:
        for name, runs in labelled_sets(space, args.data, names(args)).items():
            costs = [tokens_of(run, VlmConfig()) for run in runs]
            sums = list(map(sum, costs))
            rows.append([name, str(len(runs)), str(sum(map(len, costs))), str(sum(sums))])
            by_run += sums
    print(table_text(["set", "runs", "calls", "tokens"], rows))
    for num_asked in ASKED_FIRST:
        off = errors(np.array(by_run), num_asked)
        mean = f"{off.mean():.1%}"
        largest = f"{np.quantile(off, 0.9):.1%}"
        print(
            f"by {num_asked} of {len(by_run)} runs: {mean} off on average, in nine of ten draws at most {largest}"
        )


if __name__ == "__main__":
    main()
