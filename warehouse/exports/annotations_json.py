"""The file of LeRobot's dataset visualizer for a LeRobot dataset that is there already: put it into its `meta`.

What it holds says annotate.conventions.annotations_json. A person changes it there, and `import annotations-json` reads
it. Atoms have no camera, so questions about pictures are not among them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from annotate.conventions.annotations_json import VERSION
from core.files import write_file
from warehouse.exports.common import Exported, ExportError, Selected, is_same_file
from warehouse.exports.labels import each_label, select_for_labels
from warehouse.exports.language import persistent_rows
from warehouse.exports.options import LabelOptions, Selection
from warehouse.exports.rabc import the_dataset
from warehouse.lake import Lake

KIND = "annotations-json"
OURS = "proccorpus"  # key of the file that says what it was made of


def export(
    lake: Lake,
    selection: Selection,
    out: Path,
    options: LabelOptions = LabelOptions(),
    *,
    overwrite: bool = False,
) -> Exported:
    """Write the file `out`. Raises ExportError and what `select` raises."""
    selected = select_for_labels(lake, selection, options.label_run)
    the_dataset(selected)
    identity = selected.identity(KIND, options)
    if is_same_file(out, identity, overwrite, _identity, example="lerobot_annotations.json"):
        return _exported(selected, out, json.loads(out.read_text()), again=True)
    episodes: dict[str, Any] = {}
    for e, label in each_label(selected, options.label_run):
        rows = persistent_rows(label, np.arange(e.num_frames) / e.fps)
        atoms = [{name: value for name, value in row.items() if name != "camera"} for row in rows]
        if atoms:
            episodes[str(e.episode_index)] = {"atoms": atoms}
    if not episodes:
        raise ExportError("nothing to export: no episode selected has a label whose steps have names")
    content = {"version": VERSION, "episodes": episodes, OURS: {"identity": identity, "snapshot": selected.snapshot}}
    write_file(out, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    return _exported(selected, out, content, again=False)


def _identity(out: Path) -> str | None:
    try:
        return str(json.loads(out.read_text())[OURS]["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _exported(selected: Selected, out: Path, content: dict[str, Any], *, again: bool) -> Exported:
    unnamed = len(selected.episodes) - len(content["episodes"])
    notes = [f"{unnamed} episodes have no label whose steps have names, and are left out"] if unnamed else []
    lengths = {e.episode_index: e.num_frames for e in selected.episodes}
    return Exported(
        kind=KIND,
        out=str(out),
        episodes=len(content["episodes"]),
        frames=sum(lengths[int(number)] for number in content["episodes"]),
        files=1,
        bytes=out.stat().st_size,
        again=again,
        left_out=selected.left_out,
        notes=tuple(notes),
    )
