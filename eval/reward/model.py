"""Rewards from a model that is asked, in this process or by way of a server: a camera's window is a prompt."""

import math

from annotate.samples.procvqa import progress_question
from annotate.samples.replies import parse_answer, parse_reply
from annotate.samples.wording import question_text
from eval.benchmarks.question import share_of
from eval.reward.scorer import Reward
from eval.reward.stream import Stream

SHOWN = 200  # characters of an answer that a failure quotes


def question(stream: Stream, num_pictures: int) -> str:
    """ProcVQA's question of a window; ProgressLM's of one picture where the stream has steps, which count alike."""
    steps = stream.steps
    if not steps:
        return progress_question(stream.task, num_pictures)
    return question_text("text", stream.task, [k / len(steps) for k in range(1, len(steps) + 1)], steps, "think")


def read_words(text: str, is_progresslm: bool) -> Reward:
    """The reward that an answer gives; where it gives no number, or says n/a, a failure with the answer's words."""
    if not is_progresslm:
        share, said, lacking = share_of(text), text.partition("<progress>")[0].strip(), "no single progress"
        share = None if math.isnan(share) else share
    else:
        reply, answer = parse_reply(text), parse_answer(text)
        said = "\n".join(part for part in (reply.ref_think, reply.score_think) if part)
        share, lacking = reply.score if reply.score is not None else answer.score, "no single score"
        if reply.score_is_na or answer.is_na:
            lacking = "the model says n/a: the state does not fit the steps"
    if share is not None:
        return Reward("text", share, reasoning=said or None)
    why = lacking if "n/a" in lacking else f"{lacking} in the answer"
    return Reward("text", None, reasoning=said or None, failure=f"{why}: {text[:SHOWN]!r}")
