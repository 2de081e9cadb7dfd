"""The file of LeRobot's dataset visualizer for a LeRobot dataset that is there already: put it into its `meta`.

What it holds says annotate.conventions.annotations_json. A person changes it there, and `import annotations-json` reads
it. Atoms have no camera, so questions about pictures are not among them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from annotate.conventions.annotations_json import VERSION
from core.errors import UserError
from core.files import write_file
from warehouse.exports.export import FileExport, counted
from warehouse.exports.labels import LabelExport
from warehouse.exports.lerobot_labels import persistent_rows
from warehouse.exports.rabc import OneDatasetExport

OURS = "proccorpus"  # key of the file that says what it was made of


class AnnotationsJsonExport(FileExport, OneDatasetExport, LabelExport):
    example = "lerobot_annotations.json"

    def identity_in(self, out: Path) -> str | None:
        try:
            return str(json.loads(out.read_text())[OURS]["identity"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_file(self, out: Path) -> None:
        episodes: dict[str, Any] = {}
        for e, label in self.labels():
            atoms = persistent_rows(label, np.arange(e.num_frames) / e.fps)
            if atoms:
                episodes[str(e.episode_index)] = {"atoms": atoms}
        if not episodes:
            raise UserError("nothing to export: no episode selected has a label whose steps have names")
        ours = {"identity": self.identity, "snapshot": self.selected.snapshot}
        content = {"version": VERSION, "episodes": episodes, OURS: ours}
        write_file(out, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")

    def counts(self, out: Path) -> tuple[int, int, list[str]]:
        written = json.loads(out.read_text())["episodes"]
        frames = sum(e.num_frames for e in self.selected.episodes if str(e.episode_index) in written)
        unnamed = len(self.selected.episodes) - len(written)
        return len(written), frames, counted(unnamed, "episodes have no label whose steps have names, and are left out")
