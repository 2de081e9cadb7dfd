"""Files for a LeRobot dataset that is there already: a sidecar of signals per frame, labels for its visualizer."""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.conventions.sidecars import (
    KEYS,
    VISUALIZER_VERSION,
    Descriptor,
    advantages,
    chunk_residuals,
    metadata,
    threshold,
)
from core.domain.label import Episode, Label
from core.errors import UserError
from core.files import whole_file, write_file
from warehouse.exports.export import OURS, FileExport
from warehouse.exports.lerobot_plan import persistent_rows
from warehouse.exports.rabc import (
    FrameExport,
    FrameRows,
    Place,
    between,
    provenance,
    write_frames,
)
from warehouse.exports.selection import ExportedEpisode, counted

IDENTITY = f"{OURS}.identity"  # of the export: says whether a file is the one asked for


def _score(text: str, low: float = 0, *, allow_nan: bool = True) -> Descriptor:
    return Descriptor(text, "higher", (low, 1), scope="task", allow_nan=allow_nan)


LABEL_SIGNALS = {
    "progress": _score(
        "Task progress: 0 at the start, 1 exactly when the task is finished.", allow_nan=False
    ),
    "segment": Descriptor("Which segment of the label holds the frame, from 0."),
    "step": Descriptor(
        "Which planned step the segment is an attempt at, from 0; -1: none, it is idle or done."
    ),
    "completed": Descriptor(
        "Is what the segment does complete at its end? Of no step: is the task done?"
    ),
    "planned_steps": Descriptor("How many steps the whole task needs, done or not."),
}
MODEL_SIGNALS = {
    "progress": _score("Task progress as the reward model says; NaN: it gave no number."),
    "success": _score("Probability that the goal is reached; NaN: the model does not say."),
}
ADVANTAGE_SIGNALS = {
    "chunk_td_residual": _score(
        "V[t+N] - V[t], V the progress; NaN: fewer than N frames follow.", -1
    ),
    "advantage": _score("As chunk_td_residual; at the end the outcome (1 or 0) less V[t].", -1),
    "advantage_positive": Descriptor(
        "RECAP's indicator: is the advantage among the best of its task?"
    ),
}


class _Signals(NamedTuple):
    """Of an episode: its rows, whose values are its signals; `progress` float [num_frames] at every frame."""

    episode: Episode
    rows: FrameRows
    progress: np.ndarray


class FrameSignalsExport(FileExport, FrameExport):
    """Signals come from labels (progress and the step under way), or from a reward model (progress and success at the
    frames that it scored), and, where wanted, advantages follow from either. Episodes without them have no rows. One
    chunk of the lake is in memory at a time; with advantages all signals are.

    What the convention is, and which states of it are written, says annotate.conventions.sidecars.
    """

    example = "signals.parquet"

    def identity_in(self, out: Path) -> str | None:
        try:
            stored_identity = (pq.read_metadata(out).metadata or {}).get(IDENTITY.encode())
        except (OSError, pa.ArrowException):
            return None
        return None if stored_identity is None else stored_identity.decode()

    def counts(self, out: Path) -> tuple[int, int, list[str]]:
        # A model's rewards count as they are
        by_model = self.options.rewards is not None
        with_rows = sum(by_model or e.label_run is not None for e in self.selected.episodes)
        notes = [] if by_model else self.notes(with_rows)
        return with_rows, pq.read_metadata(out).num_rows, notes

    def write_file(self, out: Path) -> None:
        chosen = LABEL_SIGNALS if self.options.rewards is None else MODEL_SIGNALS
        of_horizon = ADVANTAGE_SIGNALS if self.options.horizon else {}
        descriptors = dict(sorted((chosen | of_horizon).items()))
        signals = self._signals()
        first = next(signals, None)
        if first is None:
            self.notes(labelled=0)  # which refuses
            return
        numbers = sorted(self.in_source[e.episode_index] for e in self.selected.episodes)
        facts = metadata(descriptors, self._provenance(), numbers)
        types: dict[str, pa.DataType] = dict.fromkeys(KEYS, pa.int64())
        types |= {n: pa.from_numpy_dtype(first.rows.values[n].dtype) for n in descriptors}
        fields = [pa.field(name, type_, nullable=False) for name, type_ in types.items()]
        schema = pa.schema(fields, facts | {IDENTITY: self.identity})
        with whole_file(out) as half:
            write_frames(half, schema, (s.rows for s in chain([first], signals)))

    def _signals(self) -> Iterator[_Signals]:
        """Of each episode that has any, in order."""
        of_episodes = (self._of_episode(p, p.exported) for p in self.places() if p.exported)
        signals = filter(None, of_episodes)
        if self.options.horizon:
            return iter(self._with_advantages(list(signals)))
        return signals

    def _of_episode(self, place: Place, x: ExportedEpisode) -> _Signals | None:
        """None without a label, unless a model's rewards stand in its place."""
        e = x.episode
        if self.options.rewards is not None:
            frames, progress, success = self.scored(e)
            values = {
                "progress": progress.astype(np.float32),
                "success": success.astype(np.float32),
            }
            line = between(frames, progress, e.num_frames)
        elif x.label is not None:
            frames = np.arange(e.num_frames)
            values = label_values(x.label)
            line = values["progress"]
        else:
            return None
        return _Signals(e, FrameRows(place.start, place.number, frames, values), line)

    def _provenance(self) -> dict[str, Any]:
        ((source, episodes, frames),) = self.lake.rows(
            "SELECT any_value(d.source_uri), count(*), sum(f.num_rows)::BIGINT FROM datasets d "
            "JOIN episode_facts f USING (dataset) WHERE dataset = ?",
            [self.dataset],
        )
        options = self.options
        names = {"horizon", "positive_share"} if options.horizon else set[str]()
        settings = options.model_dump(include=names)
        scoring = provenance(self.selected, options, self.selected.active_runs, **settings)
        dataset_facts = {
            "name": self.dataset,
            "source": source,
            "total_episodes": episodes,
            "total_frames": frames,
        }
        return {"producer": "proccorpus", "dataset": dataset_facts, "scoring": scoring}

    def _with_advantages(self, signals: list[_Signals]) -> list[_Signals]:
        """The same with the signals of ADVANTAGE_SIGNALS; the threshold of RECAP's indicator is
        each task's own."""
        horizon = self.options.horizon
        by_task: dict[str | None, list[np.ndarray]] = defaultdict(list)
        for e, rows, progress in signals:
            advantage = advantages(progress, horizon, e.success)[rows.frames]
            by_task[e.task].append(advantage)
            residuals = chunk_residuals(progress, horizon)[rows.frames]
            rows.values.update(chunk_td_residual=residuals, advantage=advantage)
        share = self.options.positive_share
        limits = {task: threshold(np.concatenate(a), share) for task, a in by_task.items()}
        for e, rows, _ in signals:
            rows.values["advantage_positive"] = rows.values["advantage"] > limits[e.task]
        return signals


def label_values(label: Label) -> dict[str, np.ndarray]:
    lengths = [len(s) for s in label.segments]
    return {
        "progress": label.progress.astype(np.float32),
        "segment": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        "step": np.repeat(
            np.array([-1 if s.step is None else s.step for s in label.segments], np.int32), lengths
        ),
        "completed": np.repeat([s.completed for s in label.segments], lengths),
        "planned_steps": np.full(sum(lengths), label.num_planned, np.int32),
    }


class AnnotationsJsonExport(FileExport, FrameExport):
    """What LeRobot's dataset visualizer reads in a dataset's `meta` (annotate.conventions.sidecars). A person
    changes it there, and `import annotations-json` reads it. Atoms have no camera, so questions about pictures are not
    among them."""

    example = "lerobot_annotations.json"

    def identity_in(self, out: Path) -> str | None:
        try:
            return str(json.loads(out.read_text())[OURS]["identity"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_file(self, out: Path) -> None:
        in_source = self.in_source
        episodes: dict[str, Any] = {}
        for x in self.episodes():
            e = x.episode
            if atoms := persistent_rows(x.label, np.arange(e.num_frames) / e.fps):
                episodes[str(in_source[e.episode_index])] = {"atoms": atoms}
        if not episodes:
            raise UserError(
                "nothing to export: no episode selected has a label whose steps have names"
            )
        ours = {"identity": self.identity, "snapshot": self.selected.snapshot}
        content = {"version": VISUALIZER_VERSION, "episodes": episodes, OURS: ours}
        write_file(out, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")

    def counts(self, out: Path) -> tuple[int, int, list[str]]:
        written = json.loads(out.read_text())["episodes"]
        frames = sum(
            e.num_frames
            for e in self.selected.episodes
            if str(self.in_source[e.episode_index]) in written
        )
        unnamed = len(self.selected.episodes) - len(written)
        return (
            len(written),
            frames,
            counted(unnamed, "episodes have no label whose steps have names, and are left out"),
        )
