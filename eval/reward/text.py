"""Rewards from words: what a generative model is asked, and the number and the reasons in what it says."""

from annotate.samples.procvqa import progress_question
from annotate.samples.replies import parse_answer, parse_reply
from annotate.samples.wording import question_text
from eval.benchmarks.rows import share_of
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
    return _progresslm(text) if is_progresslm else _procvqa(text)


def _procvqa(text: str) -> Reward:
    share = share_of(text)
    said = text.partition("<progress>")[0].strip() or None
    if share != share:
        return Reward("text", None, reasoning=said, failure=f"no single progress in the answer: {text[:SHOWN]!r}")
    return Reward("text", share, reasoning=said)


def _progresslm(text: str) -> Reward:
    reply = parse_reply(text)
    said = "\n".join(part for part in (reply.ref_think, reply.score_think) if part) or None
    answer = parse_answer(text)
    score = reply.score if reply.score is not None else answer.score
    if score is None:
        is_na = reply.score_is_na or answer.is_na
        why = "the model says n/a: the state does not fit the steps" if is_na else "no single score in the answer"
        return Reward("text", None, reasoning=said, failure=f"{why}: {text[:SHOWN]!r}")
    return Reward("text", score, reasoning=said)
