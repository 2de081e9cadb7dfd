"""Prompts: rendered as the golden files say, and quotations that cannot be left.

To take over a wanted change of the texts: GOLDEN=anew python -m pytest tests/annotate/vlm/test_prompts.py
"""

import asyncio
import os
from pathlib import Path

import pytest

from annotate.config import VlmConfig
from annotate.model_client.calls import Request
from annotate.vlm.annotator import annotate_episode, reason_episode
from tests.kits.vlm_episodes import knowing, question, view_of

GOLDEN = Path(__file__).parent / "golden_prompts"
TRUTH = [(0, "1", True), (70, "2", False), (130, "2", True), (200, "idle", True), (250, "3", True)]


def replies_of_reason(request: Request) -> dict[str, str]:
    return dict.fromkeys(request.schema["properties"], "Text")


def asked(view, config=None, model=None) -> list[Request]:
    """All requests for an episode."""
    config = config or VlmConfig(contact_sheet=False, refine=True)
    model = model or knowing(TRUTH, reason=replies_of_reason)
    label = asyncio.run(annotate_episode(view, model, config))
    asyncio.run(reason_episode(view, label.segments, label.num_planned, model, config))
    return model.requests


def texts(request: Request) -> str:
    """A request as people can read it."""
    parts = [
        part if isinstance(part, str) else f"<{part.jpeg.decode()}>" for part in request.content
    ]
    return "\n".join(parts) + "\n"


def golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "anew":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("stage", ["plan", "segment", "refine", "verify", "reason"])
def test_each_stage_is_told_what_the_golden_file_says(stage):
    requests = [r for r in asked(view_of()) if r.stage == stage]
    golden(stage, texts(requests[0]))


def test_the_plan_of_an_episode_without_task():
    model = knowing(TRUTH, reason=replies_of_reason)
    model.replies["plan"] = model.replies["plan"] | {"task": "Put the cup down"}
    requests = asked(view_of(task=None), model=model)
    golden("plan_without_task", question(requests[0]) + "\n")
    assert question(requests[1]).startswith(
        'The task, as concluded from the pictures: "Put the cup down"\n'
    )


def test_the_question_about_a_window_of_a_long_episode():
    view = view_of(num_frames=300 * 30)
    requests = [r for r in asked(view, VlmConfig(contact_sheet=False)) if r.stage == "segment"]
    golden("segment_of_a_window", question(requests[1]) + "\n")
