"""A corpus in Python: what `import proccorpus` gives. Each name does what its command does, by the same functions."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image

from core.domain.label import Label, Segment
from core.errors import FailedError, UserError
from core.figures import render
from core.names import did_you_mean, whoami
from core.paths import DEFAULT_WORKSPACE, Workspace
from eval.reward.open import ScorerOptions, open_scorer
from eval.reward.video import SCORE_FPS, Row, open_clip, score_clip
from pipeline.build import run_build
from pipeline.config import DatasetBuild, stored_build, with_annotator, with_task
from pipeline.pictures import labelled_episode
from pipeline.rewards import CAMERA, named_scorer, task_like
from pipeline.sources import builds_of_source
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import Exported
from warehouse.exports.options import Selection
from warehouse.lake import Lake, corrections, open_lake
from warehouse.lake.lake import lake_to_read
from warehouse.lake.sql import open_for_users
from warehouse.lake.stored import labels_of, usable_episode
from warehouse.releases.contents import lake_shards
from warehouse.releases.release import get_release
from warehouse.shards.loader import Loader, LoaderConfig

LARGEST_PICTURE = 150_000  # bytes of `pc.Episode.show`


def open(workspace: str | Path | None = None) -> "Corpus":  # noqa: A001 - pc.open, as in gzip.open
    """The corpus of a workspace: by default that of PROCCORPUS_WORKSPACE, else ./workspace.

    Raises UserError where there is none.
    """
    space = _space(workspace)
    if not space.exists():
        raise UserError(space.absence)
    return Corpus(space)


def build(
    source: str | Path,
    workspace: str | Path | None = None,
    *,
    name: str | None = None,
    task: str | None = None,
    annotator: str | None = None,
    episodes: Sequence[int] | None = None,
    revision: str | None = None,
    workers: int | None = None,
) -> "Corpus":
    """Ingest, label and shard a dataset, as `proccorpus build` does; what is up to date is not done again.

    source: a folder, a video file or an address. task: instruction of runs for which it has none. annotator: auto
    (default), motion, native, vlm or transfer. Raises UserError, and FailedError where a stage failed (the rest was
    built).
    """
    space = _space(workspace)
    lake = open_lake(space) if space.exists() else None
    chosen = None if episodes is None else tuple(episodes)
    builds, _ = builds_of_source(
        space, lake, str(source), name=name, episodes=chosen, revision=revision
    )
    if task:
        builds = tuple(with_task(dataset_build, task) for dataset_build in builds)
    if annotator:
        builds = tuple(with_annotator(dataset_build, annotator) for dataset_build in builds)
    return _built(space, builds, workers)


def reward(
    video: str | Path,
    task: str = "",
    *,
    like: "str | CorpusEpisode | Sequence[str | CorpusEpisode]" = (),
    workspace: str | Path | None = None,
    fps: float | None = None,
    **options: Any,
) -> list[Row]:
    """Score a video, as `proccorpus reward` does: a row per scored frame with frame_index, timestamp_s, progress, done.

    like: shown episodes, or a task whose references they are; without, a model: options are those of the command, such
    as model="latest" or baseline="clock". task: by default that of a shown episode. fps: frames a second, default 4.
    Raises UserError.
    """
    references = [like] if isinstance(like, str | CorpusEpisode) else list(like)
    runs = [reference for reference in references if isinstance(reference, CorpusEpisode)]
    names = tuple(
        f"{e.dataset.name}/{e.index}" if isinstance(e, CorpusEpisode) else e for e in references
    )
    if runs and workspace is None:
        space = runs[0].dataset.corpus.workspace
    else:
        space = _space(workspace)
    if names and not task:
        task = task_like(names, space)
    clip = open_clip({CAMERA: Path(video)})
    config = named_scorer(ScorerOptions(like=names, **options), space, clip.cameras)
    with open_scorer(config) as scorer:
        return list(score_clip(scorer, clip, task, score_fps=fps or min(SCORE_FPS, clip.fps)))


def _space(workspace: str | Path | None) -> Workspace:
    return Workspace(
        Path(workspace or os.environ.get("PROCCORPUS_WORKSPACE") or DEFAULT_WORKSPACE).resolve()
    )


def _built(space: Workspace, builds: Sequence[DatasetBuild], workers: int | None) -> "Corpus":
    report = run_build(space, builds, workers)
    if report.failed:
        raise FailedError(
            "; ".join(f"{f.stage} of {f.dataset} failed: {f.message}" for f in report.failed)
        )
    return Corpus(space)


class Corpus:
    """A workspace's datasets, labels, samples and exports. It is read as it is at each call."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def __repr__(self) -> str:
        return f"<Corpus {self.workspace.root}: {', '.join(self.datasets) or 'empty'}>"

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in order."""
        return [
            row["dataset"] for row in self._lake().dicts("SELECT dataset FROM datasets ORDER BY 1")
        ]

    def __getitem__(self, dataset: str) -> "Dataset":
        """A dataset by name. Raises UserError where there is none."""
        if dataset not in (dataset_names := self.datasets):
            raise UserError(
                f"no dataset {dataset!r} in {self.workspace.root}{did_you_mean(dataset, dataset_names)}"
            )
        return Dataset(self, dataset)

    def __iter__(self) -> Iterator["Dataset"]:
        return (Dataset(self, name) for name in self.datasets)

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """A query over all tables and views (docs/tables.md), read only; `.df()`, `.arrow()`, `.fetchall()`."""
        return open_for_users(self.workspace).sql(query)

    def labels(self, dataset: str | None = None) -> pa.Table:
        """The segments that count, a row each, of all datasets or one; `.to_pandas()`. Raises UserError."""
        condition, values = ("WHERE dataset = ?", [self[dataset].name]) if dataset else ("", [])
        order = "ORDER BY dataset, episode_index, segment_index"
        return self._lake().arrow(f"SELECT * FROM active_segments {condition} {order}", values)

    def samples(self, split: str = "train", release: str | None = None, **loader: Any) -> Loader:
        """What a training loop reads: question-answer samples with their pictures (JPEG bytes), shuffled.

        Of a release, or of the corpus as it is. loader: fields of LoaderConfig, such as seed and families. Raises
        UserError.
        """
        lake = self._lake()
        shards = get_release(lake, release).shard_list if release else lake_shards(lake)
        paths = [shard.path(self.workspace) for shard in shards if shard.split == split]
        if not paths:
            splits = ", ".join(sorted({shard.split for shard in shards})) or "no splits"
            raise UserError(f"no samples in split {split!r}; there are {splits}")
        return Loader(paths, LoaderConfig(**loader))

    @property
    def export(self) -> "Exports":
        """`corpus.export.lerobot("out")` and all kinds of the command `export`."""
        return Exports(self)

    def build(self, dataset: str | None = None, workers: int | None = None) -> "Corpus":
        """Bring one dataset, or all, up to date: corrections become labels, samples and shards. Raises FailedError."""
        lake = self._lake()
        names = self.datasets if dataset is None else [self[dataset].name]
        builds = [stored for name in names if (stored := stored_build(lake, name)) is not None]
        return _built(self.workspace, builds, workers)

    def _lake(self) -> Lake:
        return lake_to_read(self.workspace)


class Dataset:
    """A dataset of a corpus; `dataset[33]` is the episode of that episode_index."""

    def __init__(self, corpus: Corpus, name: str) -> None:
        self.corpus = corpus
        self.name = name

    def __repr__(self) -> str:
        return f"<Dataset {self.name}: {len(self)} usable episodes>"

    def __getitem__(self, episode_index: int) -> "CorpusEpisode":
        """An episode as it is now. Raises UserError where there is none, or it is quarantined."""
        with (lake := self.corpus._lake()).reading():
            return _episode(lake, self, episode_index)

    def __iter__(self) -> Iterator["CorpusEpisode"]:
        """The usable episodes, in order."""
        lake = self.corpus._lake()
        sql = "SELECT episode_index FROM episodes WHERE dataset = ? AND status = 'ok' ORDER BY 1"
        for (index,) in lake.rows(sql, [self.name]):
            yield _episode(lake, self, index)

    def __len__(self) -> int:
        sql = "SELECT count(*) FROM episodes WHERE dataset = ? AND status = 'ok'"
        return int(self.corpus._lake().rows(sql, [self.name])[0][0])


@dataclass(frozen=True)
class CorpusEpisode:
    """One episode and its label: other than its facts alone it can be drawn and corrected.

    segments: in order, tiling the frames. plan: the planned steps. progress: float32 [num_frames], 0 to 1. label_run:
    who made the label, in table label_runs. content, newest_correction: what a correction of this label was made on.
    """

    dataset: Dataset
    index: int
    task: str | None
    success: bool | None
    fps: float
    num_frames: int
    segments: tuple[Segment, ...] = field(repr=False)
    plan: tuple[str, ...]
    progress: np.ndarray = field(repr=False)
    label_run: str | None
    content: str = field(repr=False)
    newest_correction: str | None

    def show(self) -> Image.Image:
        """Pictures, segments and progress along time; a notebook displays it."""
        if self.label_run is None:
            raise UserError(f"episode {self.index} of {self.dataset.name} has no label to show")
        figure = labelled_episode(self.dataset.corpus._lake(), self.dataset.name, self.index)
        return Image.open(io.BytesIO(render(figure, LARGEST_PICTURE)))

    def correct(
        self,
        segments: Sequence[Segment | Mapping[str, Any]],
        plan: Sequence[str] = (),
        *,
        author: str | None = None,
        comment: str = "",
    ) -> None:
        """Say what its segments are, as in the editor; the next `build` makes labels of it.

        segments: tiling the frames, with name, start_frame, end_frame (exclusive) and, where they are no completed
        steps, kind (step, idle, done) and completed. plan: the planned steps; they follow from the segments' names
        where it is left out. Raises CorrectionError, and ConflictError where somebody else corrected it meanwhile.
        """
        segment_rows = [corrections.as_said(s) if isinstance(s, Segment) else s for s in segments]
        corrections.save(
            open_lake(self.dataset.corpus.workspace),
            self.dataset.name,
            self.index,
            corrections.parsed({"segments": segment_rows, "plan": list(plan)}),
            author=author or whoami(),
            base_label_run=self.label_run,
            base_content_hash=self.content,
            follows=self.newest_correction,
            comment=comment,
        )


def _episode(lake: Lake, dataset: Dataset, index: int) -> CorpusEpisode:
    try:
        facts = corrections.episode_facts(lake, dataset.name, index)
    except corrections.CorrectionError as e:  # nobody corrects anything here
        raise UserError(str(e)) from e
    listed = usable_episode(lake.con, dataset.name, index)
    label = labels_of(lake.con, dataset.name, episodes=[index], whole=True).get(index, Label([], 0))
    return CorpusEpisode(
        dataset=dataset,
        index=index,
        task=listed.task,
        success=listed.success,
        fps=listed.fps,
        num_frames=listed.num_frames,
        segments=tuple(label.segments),
        plan=label.plan,
        progress=label.progress,
        label_run=label.label_run or None,
        content=facts["content_hash"],
        newest_correction=corrections.newest_id(lake, dataset.name, index),
    )


class Exports:
    """The kinds of the command `export`, as methods: `exports.lerobot(out, dataset=("demo",), flavour="subtask")`."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def __dir__(self) -> list[str]:
        return [name.replace("-", "_") for name in EXPORT_KINDS]

    def __getattr__(self, name: str) -> Any:
        kind = EXPORT_KINDS.get(name.replace("_", "-"))
        if kind is None:
            raise AttributeError(f"no export {name!r}{did_you_mean(name, dir(self))}")

        def export(out: str | Path, *, overwrite: bool = False, **options: Any) -> Exported:
            chosen = {k: v for k, v in options.items() if k in _names(Selection)}
            kind_options = {k: v for k, v in options.items() if k not in chosen}
            lake = self.corpus._lake()
            return kind.export(
                lake,
                Selection(**chosen),
                Path(out),
                kind.options(**kind_options),
                overwrite=overwrite,
            )

        export.__name__ = name
        export.__doc__ = f"{kind.about} Options: those of `proccorpus export {kind.name}`."
        return export


def _names(model: type[Selection]) -> set[str]:
    fields = model.model_fields.items()
    return {
        name
        for field, info in fields
        for name in (field, info.validation_alias)
        if isinstance(name, str)
    }
