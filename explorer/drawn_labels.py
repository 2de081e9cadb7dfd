"""The curves of labels that no build has seen: of what a person has saved since, and of
what they draw right now.
"""

from typing import Any

from core.annotators import HUMAN
from core.domain.episode import Episode
from core.errors import UserError
from explorer.episode import episode_data
from explorer.site import Visit
from warehouse.lake.corrections import SAID_LATER, Corrected, CorrectedSegment, parsed


def drawn_curves(
    visit: Visit, dataset: str, episode_index: int, label: Corrected
) -> dict[str, list[float]]:
    """`progress` and `progress_procvlm` of a label, at every frame; empty where this
    explorer can draw none.

    Raises UserError: the label contradicts itself, or the episode cannot be used.
    """
    draw = visit.explorer.options.label_curves
    if draw:
        return draw(dataset, episode_index, visit.reader.snapshot(), label)
    return {}


def shown_episode(visit: Visit, episode: Episode) -> dict[str, Any]:
    """Everything of an episode; a person's label that no build has taken in has its curves, too."""
    facts = episode_data(visit.reader, episode)
    return facts | {"runs": [_with_curves(visit, episode, run) for run in facts["runs"]]}


def _with_curves(visit: Visit, episode: Episode, run: dict[str, Any]) -> dict[str, Any]:
    """The label; where a person made it and it lacks its curves, with them, or with the
    reason in its notes.
    """
    if run["progress"] or run["annotator"] != HUMAN:
        return run
    try:
        curves = drawn_curves(visit, episode.dataset, episode.episode_index, _as_correction(run))
    except UserError as e:
        return run | {"notes": [*run["notes"], f"no curve can be drawn before the next build: {e}"]}
    if not curves:
        return run
    return run | curves | {"quality": run["quality"] | {"end_progress": curves["progress"][-1]}}


def _as_correction(run: dict[str, Any]) -> Corrected:
    """A shown label as a person could say it. Raises CorrectionError."""
    segments = [
        {name: segment.get(name) for name in CorrectedSegment.model_fields}
        for segment in run["segments"]
    ]
    return parsed(
        {"plan": run["plan"], "segments": segments} | {name: run[name] for name in SAID_LATER}
    )
