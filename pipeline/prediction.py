"""What building datasets with the `vlm` annotator will cost: `proccorpus dry-run`.

Episodes are taken as the lake knows them, and those that it does not know as the source lists them; nothing is
decoded and nothing is asked. What the same model has labelled before, in this workspace, calibrates the prediction.
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from annotate.model_client.tokens import TokenMeter
from annotate.vlm.cost import EpisodeShape, Expected, Prediction, calibrated, predict
from annotate.vlm.pictures import size_beside
from ingest.episode import EpisodeRecord
from ingest.identity import settle
from ingest.media.video import VIDEO_SUFFIXES, VideoError, probe
from ingest.source import list_episodes
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.reading import labelled_by, named_views
from warehouse.lake import Lake

UNKNOWN_PX = (640, 480)  # of a camera whose pictures cannot be looked at without a download
PILOTS = 50  # labelled episodes that calibrate, at most


@dataclass(frozen=True)
class DatasetCost:
    dataset: str
    prediction: Prediction
    known: int  # episodes of which the lake knows the length and the pictures; of the others the listing does
    labelled: int  # episodes that need no call: this label run has them
    pilots: int  # labelled episodes that the prediction is calibrated by
    left_out: int  # episodes whose length nothing says


def dataset_cost(
    lake: Lake | None, build: DatasetBuild, sources: Path, model: Path | None = None, *, again: bool = False
) -> DatasetCost:
    """`model`: folder with the model's tokenizer and processor. `again`: as if nothing had been labelled yet."""
    meter = TokenMeter(model)
    records = listed_records(lake, build, sources)
    done = set() if again or lake is None else _labelled(lake, build)
    wanted = {k: r for k, r in records.items() if k not in done}

    # The lake knows the pictures of what was decoded; the listing gives the rest
    known = {} if lake is None else _known(lake, build, set(wanted))
    source = build.source(sources)
    undecoded = [r for k, r in wanted.items() if k not in known]
    shapes = [_listed(build, source, record) for record in undecoded]
    listed = [shape for shape in shapes if shape is not None]

    expected, pilots = (Expected(), 0) if lake is None else expectation(lake, build, meter)
    prediction = predict(build.stages.vlm, [*known.values(), *listed], expected, meter)
    left_out = len(wanted) - len(known) - len(listed)
    return DatasetCost(build.name, prediction, len(known), len(done & set(records)), pilots, left_out)


def listed_records(lake: Lake | None, build: DatasetBuild, sources: Path) -> dict[int, EpisodeRecord]:
    """The episodes that a build would annotate, as far as metadata tell: a fresh listing, less what is unusable."""
    source = build.source(sources)
    indices, rejected = {}, set()
    if lake is not None:
        indices = dict(lake.rows("SELECT source_id, episode_index FROM episode_ids WHERE dataset = ?", [build.name]))
        sql = "SELECT DISTINCT episode_index FROM findings WHERE dataset = ? AND severity = 'unusable'"
        rejected = set(chain.from_iterable(lake.rows(sql, [build.name])))

    # A fresh listing may find what no build has seen yet, and the other way round
    listing = settle(list_episodes(source), build.dataset, indices)
    bad = rejected | {f.episode_index for f in listing.findings if f.severity == "unusable"}
    if None in bad:  # the source as a whole
        return {}
    usable = {r.episode_index: r for r in listing.records if r.episode_index not in bad}
    if source.selected is None:
        return usable
    return {k: r for k, r in usable.items() if k in source.selected}


def _labelled(lake: Lake, build: DatasetBuild) -> set[int]:
    sql = "SELECT DISTINCT episode_index FROM segments WHERE dataset = ? AND label_run = ?"
    return {k for (k,) in lake.rows(sql, [build.name, build.label_run().id])}


def _known(lake: Lake, build: DatasetBuild, wanted: set[int]) -> dict[int, EpisodeShape]:
    """Episodes that have been decoded, with the pictures that a model will be shown."""
    # Pictures as they are stored: the annotator is shown the coarse keyframes of the views that labels are made by
    named = named_views(lake, build.name)
    rows = lake.dicts(
        "SELECT c.episode_index, c.num_frames, c.fps, f.task, f.success, c.usable_cameras FROM episode_content c "
        "JOIN episode_facts f USING (dataset, episode_index) WHERE c.dataset = ? ORDER BY 1",
        [build.name],
    )
    stored = {
        (episode, camera): (frames, (width, height))
        for episode, camera, frames, width, height in lake.rows(
            "SELECT episode_index, camera, list(frame_index ORDER BY frame_index), max(width_px), max(height_px) "
            "FROM keyframes WHERE dataset = ? AND purpose = 'coarse' GROUP BY 1, 2",
            [build.name],
        )
    }

    # Only the replayed episodes need their hashes, so they are read when they are asked for
    def hashes(episode: int, camera: str) -> np.ndarray:
        sql = "SELECT phash FROM frames WHERE dataset = ? AND episode_index = ? AND camera = ? ORDER BY frame_index"
        return lake.arrow(sql, [build.name, episode, camera])["phash"].to_numpy()

    shapes = {}
    for r in rows:
        if r["episode_index"] not in wanted:
            continue
        views = labelled_by(named, r["usable_cameras"])
        pictures = [stored[r["episode_index"], camera] for camera in views]
        width, height = size_beside([size for _, size in pictures])
        shapes[r["episode_index"]] = EpisodeShape(
            num_frames=r["num_frames"],
            fps=r["fps"],
            frames=tuple(pictures[0][0]),
            width_px=width,
            height_px=height,
            task=r["task"],
            success=r["success"],
            phash=partial(hashes, r["episode_index"], views[0]),
            cameras=views,
        )
    return shapes


def _listed(build: DatasetBuild, source: Source, record: EpisodeRecord) -> EpisodeShape | None:
    """An episode by its metadata, and by the header of its video where that is at hand; None: its length is unknown."""
    # A video's header tells the size where the video is at hand; the listing's length counts where it has one
    width, height, length = *UNKNOWN_PX, record.num_rows
    video = record.videos[0].uri if record.videos else ""
    if source.remote is None and video.lower().endswith(VIDEO_SUFFIXES):
        try:
            info = probe(source.resolve(video), source.config.limits)
        except VideoError:
            return None  # the build will find that it cannot be used
        width, height, length = info.width_px, info.height_px, length or info.num_frames
    frames = build.stages.frames
    if not length or length < frames.min_frames:
        return None

    # Its keyframes, as the frames stage will cut and scale them
    scale = min(1.0, frames.keyframe_max_px / max(width, height))
    every = max(1, round(frames.keyframe_interval_s * record.fps))
    # Of the other views, which are not looked at, pictures are taken to be as large
    views = labelled_by(build.views, record.cameras)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    width, height = size_beside([size] * max(1, len(views)))
    return EpisodeShape(
        num_frames=length,
        fps=record.fps,
        frames=tuple(range(0, length, every)),
        width_px=width,
        height_px=height,
        task=record.task,
        success=record.success,
        cameras=views,
    )


def expectation(lake: Lake, build: DatasetBuild, meter: TokenMeter) -> tuple[Expected, int]:
    """What to expect of a model, and of how many episodes that is known.

    By what the same label run says of this dataset; where it says nothing, of any dataset of this workspace.
    """
    run = build.label_run().id
    labels = lake.dicts(
        "SELECT l.dataset, l.episode_index, len(l.plan) AS steps, count(*) - 1 AS changes FROM episode_labels l "
        "JOIN segments s USING (dataset, episode_index, label_run) WHERE l.label_run = ? GROUP BY ALL ORDER BY ALL",
        [run],
    )
    own = [r for r in labels if r["dataset"] == build.name] or labels
    # Evenly over the labelled episodes, in their order
    pilots = own[:: max(1, -(-len(own) // PILOTS))]
    if not pilots:
        return Expected(), 0

    # Their shapes and the calls that they took, dataset by dataset
    pilots_by_dataset: dict[str, set[int]] = {}
    for r in pilots:
        pilots_by_dataset.setdefault(r["dataset"], set()).add(r["episode_index"])
    shapes: list[EpisodeShape] = []
    calls: list[dict[str, Any]] = []
    sql = "SELECT * FROM vlm_calls WHERE dataset = ? AND label_run = ?"
    for dataset, episodes in pilots_by_dataset.items():
        shapes += _known(lake, _of_dataset(build, dataset), episodes).values()
        calls += [c for c in lake.dicts(sql, [dataset, run]) if c["episode_index"] in episodes]

    # What a model decides is expected as it was decided on the pilots
    steps = fmean(r["steps"] for r in pilots)
    changes = fmean(r["changes"] for r in pilots)
    return calibrated(build.stages.vlm, shapes, steps, changes, calls, meter), len(pilots)


def _of_dataset(build: DatasetBuild, dataset: str) -> DatasetBuild:
    """The same build of a dataset of another name."""
    return build.model_copy(update={"dataset": build.dataset.model_copy(update={"name": dataset})})


def facts(cost: DatasetCost) -> dict[str, Any]:
    """A prediction for scripts."""
    p = cost.prediction
    return {k: v for k, v in cost.__dict__.items() if k != "prediction"} | {
        "episodes": p.episodes,
        "stages": p.rows(),
        "gpu_hours": p.gpu_hours,
        "usd": p.usd,
    }


def summary(cost: DatasetCost) -> str:
    """What the numbers rest on, in a sentence."""
    p = cost.prediction
    by = f"calibrated by {cost.pilots} labelled episodes" if cost.pilots else "not calibrated: nothing is labelled yet"
    parts = [f"{cost.dataset}: {p.episodes} episodes to annotate, {cost.known} of them decoded; {by}"]
    if cost.labelled:
        parts.append(f"{cost.labelled} are labelled already")
    if cost.left_out:
        parts.append(f"{cost.left_out} left out: nothing says how long they are")
    return f"{'; '.join(parts)}. {p.gpu_hours:.2f} GPU-hours, {p.usd:.2f} USD"
