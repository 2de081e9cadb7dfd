"""Rewards from a model that is asked, in this process or by way of a server: a camera's window is a prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.samples.procvqa import progress_question
from annotate.samples.wording import parse_answer, parse_reply, question_text
from eval.benchmarks.question import share_of
from eval.reward.scorer import NO_CARD, UNSEEN, CameraView, Reward, Scorer
from eval.reward.stream import Stream, Window
from eval.runners.prompt import Asked, ModelReply, Prompt, Runner

SHOWN = 200  # characters of an answer that a failure quotes
# Settings for pictures of files alone: a stream's pictures are fitted
OF_FILES = (
    "model_type",
    "prompt_format",
    "longest_px",
    "min_pixels",
    "max_pixels",
)


class ModelScorer(Scorer):
    """The windows' pictures stand in order of time. A window begins with its oldest picture, so a server shares
    prefixes only where a demonstration in words stands before the one picture."""

    def __init__(
        self, runner: Runner, window: Window | None, card: Mapping[str, Any] = NO_CARD
    ) -> None:
        super().__init__(window, card)
        self.runner = runner
        self.source = "head" if runner.has_head else "text"
        self.make_ready = getattr(runner, "make_ready", None)
        runner_settings = {
            k: v for k, v in runner.settings.items() if not card or k not in OF_FILES
        }
        self.settings = {**runner_settings, "window": str(window)}

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        """Raises VlmError where a server is gone or the budget used up."""
        prompts = [_prompt_for(k, view) for k, view in enumerate(views)]
        replies = {reply.key: reply for reply in self.runner.ask(prompts)}
        return [
            self._reward(replies[str(k)], bool(view.stream.steps)) for k, view in enumerate(views)
        ]

    def _reward(self, reply: ModelReply, has_steps: bool) -> Reward:
        words = None if reply.text is None else read_words(reply.text, has_steps)
        if reply.progress is None:
            return words or Reward(self.source, None, failure=reply.error or "no answer")
        return Reward(
            reply.source,
            reply.progress,
            reply.done,
            reasoning=words and words.reasoning,
            unsure=UNSEEN if reply.source == "change" else None,
        )


def _prompt_for(number: int, view: CameraView) -> Asked:
    """What a model is asked about a view. A stream's first picture is among those of its first moment's window: nothing
    is looked at for its sake."""
    s = view.stream
    pictures = view.pictures
    prompt = Prompt(str(number), question(s, len(pictures)), (), task=s.task)
    return Asked(prompt, pictures, s.first.get(view.camera, pictures[0]))


def question(stream: Stream, num_pictures: int) -> str:
    """ProcVQA's question of a window; ProgressLM's of one picture where the stream has steps, which count alike."""
    steps = stream.steps
    if not steps:
        return progress_question(stream.task, num_pictures)
    return question_text(
        "text", stream.task, [k / len(steps) for k in range(1, len(steps) + 1)], steps, "think"
    )


def read_words(text: str, is_progresslm: bool) -> Reward:
    """The reward that an answer gives; where it gives no number, or says n/a, a failure with the
    answer's words."""
    if is_progresslm:
        reply = parse_reply(text)
        answer = parse_answer(text)
        reasoning = "\n".join(filter(None, (reply.ref_think, reply.score_think)))
        share = answer.score if reply.score is None else reply.score
        is_na = reply.score_is_na or answer.is_na
        if is_na:
            failure = "the model says n/a: the state does not fit the steps"
        else:
            failure = "no single score in the answer"
    else:
        share = share_of(text)
        reasoning = text.partition("<progress>")[0].strip()
        failure = "no single progress in the answer"
    if share is None:
        return Reward(
            "text", None, reasoning=reasoning or None, failure=f"{failure}: {text[:SHOWN]!r}"
        )
    return Reward("text", share, reasoning=reasoning or None)
