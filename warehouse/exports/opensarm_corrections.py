"""Lines of opensarm's labelling tool as people's corrections, which count at once."""

from functools import partial
from pathlib import Path
from typing import Any

from annotate.conventions.opensarm import Said, read_said
from annotate.imported_label import ImportedError
from core.step_names import unnamed_step
from warehouse.exports.corrections import SEGMENT_FIELDS, ReadCorrections, row_of
from warehouse.lake import Lake
from warehouse.lake.corrections import CorrectionError, episode_facts


def from_opensarm(lake: Lake, path: Path, author: str, dataset: str | None) -> ReadCorrections:
    """Rows of a results file; `dataset` is that of lines that do not say it. Raises CorrectionError: no such file.

    The task is one step without a name. A line is by its user, else by `author`.
    """
    try:
        lines = read_said(path)
    except ImportedError as e:
        raise CorrectionError(str(e)) from e
    read = ReadCorrections()
    for said in lines:
        where = f"episode {said.annotation.episode_index}"
        read.add(where, partial(_row_of_line, lake, said, author, dataset))
    return read


def _row_of_line(lake: Lake, said: Said, author: str, dataset: str | None) -> tuple[dict[str, Any], bool]:
    """Raises CorrectionError."""
    of, index = said.annotation.of or (dataset, said.annotation.episode_index)
    if of is None:
        raise CorrectionError("the line does not say of which dataset it is: add --dataset NAME")
    facts = episode_facts(lake, of, index)
    try:
        label = said.annotation.label(facts["num_frames"], facts["fps"], None)
    except ImportedError as e:
        raise CorrectionError(str(e)) from e
    data = {
        "dataset": of,
        "episode_index": index,
        "author": said.user if isinstance(said.user, str) else author,
        "created_at": said.ts,
        "plan": [unnamed_step(0)],
        "segments": [{name: getattr(s, name) for name in SEGMENT_FIELDS} for s in label.segments],
        "final_progress": label.end.final_progress,
        "catastrophic_frame": label.end.catastrophic_frame,
    }
    return row_of(lake, data, author)
