"""The progress of a label that no build has seen yet, by the very functions by which a build would make it."""

from contextlib import closing
from functools import lru_cache

from annotate.motion.observe import Signals
from annotate.progress import ProgressConfig
from core.domain.label import Label
from core.paths import Workspace
from pipeline.config import built
from pipeline.labelled import published_progress, stated_label
from pipeline.reading import signals_of
from warehouse.lake import Lake
from warehouse.lake.corrections import Corrected
from warehouse.lake.episodes import usable_episode

KEPT = 8  # episodes whose measurements are kept: a boundary that is dragged asks again and again


def label_curves(
    space: Workspace, dataset: str, episode_index: int, snapshot: int, label: Corrected
) -> dict[str, list[float]]:
    """Our progress and the published one at each frame of an episode, by columns of the table `progress`.

    snapshot: the state of the lake that the episode's measurements are read at.

    Raises UserError: no such episode, or one that cannot be used. CorrectionError: the label contradicts itself.
    """
    signals, config = _measured(space, dataset, episode_index, snapshot)
    segments, plan = label.settled(len(signals.change))
    person_label = Label(segments, len(plan), tuple(plan), end=label.end)
    labelled = stated_label(signals, person_label, config)
    _, whole_label = labelled
    return {
        "progress": whole_label.progress.tolist(),
        "progress_procvlm": published_progress(labelled).tolist(),
    }


@lru_cache(maxsize=KEPT)
def _measured(
    space: Workspace, dataset: str, episode_index: int, snapshot: int
) -> tuple[Signals, ProgressConfig]:
    """What the progress of an episode is made of. Raises UserError."""
    lake = Lake(space, read_only=True, snapshot=snapshot)
    with closing(lake.con):
        chunk = usable_episode(lake.con, dataset, episode_index).chunk
        [signals] = signals_of(lake, dataset, {episode_index: chunk})
        return signals, built(lake, dataset).stages.progress
