"""What building datasets will cost: `build --dry-run`. Questions to a model, and pictures that an encoder looks at.

Episodes are taken as the lake knows them, and those that it does not know as the source lists them; nothing is
decoded, nothing is asked and no encoder is loaded. What the same model took for what it has labelled before, in this
workspace, corrects the prediction.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from annotate.config import EmbeddingsConfig
from annotate.embeddings.projection import CELL, WHOLE
from annotate.frames import every_nth
from annotate.model_client.tokens import ImageRule
from annotate.vlm.cost import CallCost, KeyframeSeries, Prediction, corrections, predict
from annotate.vlm.few_runs import num_asked_runs
from annotate.vlm.pictures import joined_size
from core.values import grouped, spread
from ingest.episode import EpisodeRecord
from ingest.episodes import settle, with_numbers
from ingest.media.frames import VIDEO_SUFFIXES, VideoError
from ingest.media.video import probe
from ingest.source import list_episodes
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.plan import CURRENT, plan
from pipeline.reading import labelled_by, named_views
from pipeline.stages import stage_specs
from warehouse.lake import Lake
from warehouse.lake.stored import followers

UNKNOWN_PX = (640, 480)  # of a camera whose pictures cannot be looked at without a download
PILOTS = 50  # labelled episodes that calibrate, at most
BYTES_A_NUMBER = 1.9  # of embeddings, as measured in the lake's files
# CPU ms a picture on one thread, as measured (docs/performance.md)
MS_A_PICTURE: Mapping[str, float] = {"mobilenet_v2": 1.6, "grey": 0.4}


def listed_records(
    lake: Lake | None, build: DatasetBuild, sources: Path
) -> dict[int, EpisodeRecord]:
    """The episodes that a build would annotate, as far as metadata tell: a fresh listing, less what is unusable."""
    source = build.source(sources)
    indices = dict[str, int]()
    rejected = set[int | None]()
    if lake is not None:
        indices |= lake.rows(
            "SELECT source_id, episode_index FROM recordings WHERE dataset = ? ORDER BY left_at IS NULL",
            [build.name],
        )
        sql = "SELECT DISTINCT episode_index FROM findings WHERE dataset = ? AND severity = 'unusable'"
        rejected |= set(lake.column(sql, [build.name]))
    # A fresh listing may find what no build has seen yet, and the other way round
    settled = settle(list_episodes(source), build.dataset)
    listing = with_numbers(settled, indices, 1 + max(indices.values(), default=-1))
    bad = rejected | {f.episode_index for f in listing.findings if f.severity == "unusable"}
    if None in bad:  # the source as a whole
        return {}
    usable = {r.episode_index: r for r in listing.records if r.episode_index not in bad}
    return {k: r for k, r in usable.items() if source.selected is None or k in source.selected}


# Questions to a model


@dataclass(frozen=True)
class DatasetCost:
    dataset: str
    prediction: Prediction
    of_each_run: Prediction  # were the model asked about each of them
    known: int  # episodes of which the lake knows the length and the pictures; of the others the listing does
    labelled: int  # episodes that need no call: this label run has them
    pilots: int  # labelled episodes that the prediction is calibrated by
    left_out: int  # episodes whose length nothing says

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        p = self.prediction
        every_run = self.of_each_run
        of_model = {
            "episodes": p.episodes,
            "stages": p.rows(),
            "gpu_hours": p.gpu_hours,
            "usd": p.usd,
        }
        of_each = {
            "episodes": every_run.episodes,
            "calls": round(every_run.total.calls),
            "usd": every_run.usd,
        }
        numbers = {k: v for k, v in vars(self).items() if k not in ("prediction", "of_each_run")}
        return numbers | of_model | {"of_each_run": of_each}

    def summary(self) -> str:
        """What the numbers rest on, in a sentence."""
        p = self.prediction
        calibration = "not calibrated: nothing is labelled yet"
        if self.pilots:
            calibration = f"calibrated by {self.pilots} labelled episodes"
        parts = [
            f"{self.dataset}: {p.episodes} episodes to annotate, {self.known} of them decoded; {calibration}"
        ]
        if self.labelled:
            parts.append(f"{self.labelled} are labelled already")
        if self.left_out:
            parts.append(f"{self.left_out} left out: nothing says how long they are")
        bill = f"{'; '.join(parts)}. {p.gpu_hours:.2f} GPU-hours, {p.usd:.2f} USD"
        if self.of_each_run.episodes == p.episodes:
            return bill
        every_run = self.of_each_run
        return (
            f"{bill}; the other {every_run.episodes - p.episodes} episodes follow these where they can. Asking "
            "about each "
            f'run (runs_per_task = "all"): {every_run.total.calls:.0f} calls, {every_run.usd:.2f} USD'
        )


def dataset_cost(
    lake: Lake | None,
    build: DatasetBuild,
    sources: Path,
    model: Path | None = None,
    *,
    from_scratch: bool = False,
) -> DatasetCost:
    """`model`: its folder, for how it cuts pictures. `from_scratch`: as if nothing had been labelled yet."""
    rule = ImageRule.of(model) if model else ImageRule()
    records = listed_records(lake, build, sources)
    labelled = set()
    if lake is not None and not from_scratch:
        sql = "SELECT DISTINCT episode_index FROM segments WHERE dataset = ? AND list_contains(?, label_run)"
        runs = [run.id for run in (build.label_run(), *build.former_runs())]
        labelled = set(lake.column(sql, [build.name, runs]))
    to_label = {k: r for k, r in records.items() if k not in labelled}

    # The lake knows the pictures of what was decoded; the listing gives the rest
    known_shapes = {}
    factors: dict[str, CallCost] = {}
    pilots = 0
    if lake is not None:
        known_shapes = _known(lake, build.name, to_label)
        factors, pilots = expectation(lake, build, rule)
    source = build.source(sources)
    listed = {
        k: _listed(build, source, record) for k, record in to_label.items() if k not in known_shapes
    }
    shapes = known_shapes | {k: shape for k, shape in listed.items() if shape is not None}

    # Of most tasks some runs are asked about
    config = build.stages.vlm
    asked_episodes = _asked_about(build, records)
    of_each_run = predict(config, [*shapes.values()], factors, rule)
    prediction = predict(config, [shapes[k] for k in shapes if k in asked_episodes], factors, rule)
    numbers = len(known_shapes), len(labelled & set(records)), pilots, len(to_label) - len(shapes)
    return DatasetCost(build.name, prediction, of_each_run, *numbers)


def _asked_about(build: DatasetBuild, records: Mapping[int, EpisodeRecord]) -> set[int]:
    """Episodes that a model is asked about by themselves; and some in place of those that others will follow."""
    asked_episodes = set[int]()
    chunk_size = build.dataset.chunk_size
    of_tasks = grouped(((k // chunk_size, record.task), k) for k, record in records.items())
    for (_, task), runs in of_tasks.items():
        count = num_asked_runs([records[k].success for k in runs], build.stages.vlm) if task else 0
        whole = [k for k in runs if records[k].success is not False] if count else []
        asked_episodes |= {*runs} - {*whole} | {*spread(whole, count)}
    return asked_episodes


def _known(lake: Lake, dataset: str, episodes: Collection[int]) -> dict[int, KeyframeSeries]:
    """Episodes that have been decoded, with the pictures that a model will be shown."""
    # Pictures as they are stored: the annotator is shown the coarse keyframes of the views that labels are made by
    camera_views = named_views(lake, dataset)
    rows = lake.dicts(
        "SELECT episode_index, num_frames, fps, usable_cameras FROM episode_content WHERE dataset = ? ORDER BY 1",
        [dataset],
    )
    stored = {
        (episode, camera): (frames, (width, height))
        for episode, camera, frames, width, height in lake.rows(
            "SELECT episode_index, camera, list(frame_index ORDER BY frame_index), max(width_px), max(height_px) "
            "FROM keyframes WHERE dataset = ? AND purpose = 'coarse' GROUP BY 1, 2",
            [dataset],
        )
    }

    shapes = {}
    for row in rows:
        episode = row["episode_index"]
        if episode in episodes:
            views = labelled_by(camera_views, row["usable_cameras"])
            width, height = joined_size([stored[episode, camera][1] for camera in views])
            frames = tuple(stored[episode, views[0]][0])
            shapes[episode] = KeyframeSeries(
                row["num_frames"], row["fps"], frames, width, height, max(1, len(views))
            )
    return shapes


def _listed(build: DatasetBuild, source: Source, record: EpisodeRecord) -> KeyframeSeries | None:
    """An episode by its metadata, and by the header of its video where that is at hand; None: its length is unknown."""
    # A video's header tells the size where the video is at hand; the listing's length counts where it has one
    width, height, length = *UNKNOWN_PX, record.num_rows
    video = record.videos[0].uri if record.videos else ""
    if source.remote is None and video.lower().endswith(VIDEO_SUFFIXES):
        try:
            info = probe(source.resolve(video), source.config.limits)
        except VideoError:
            return None  # the build will find that it cannot be used
        width = info.width_px
        height = info.height_px
        length = length or info.num_frames
    frames = build.stages.frames
    if not length or length < frames.min_frames:
        return None

    # Its keyframes, as the frames stage will cut and scale them; those of other views are taken to be as large
    scale = min(1.0, frames.keyframe_max_px / max(width, height))
    interval = max(1, round(frames.keyframe_interval_s * record.fps))
    views = labelled_by(build.views, record.cameras)
    num_views = max(1, len(views))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    width, height = joined_size([size] * num_views)
    keyframes = tuple(range(0, length, interval))
    return KeyframeSeries(length, record.fps, keyframes, width, height, num_views)


def expectation(
    lake: Lake, build: DatasetBuild, rule: ImageRule
) -> tuple[dict[str, CallCost], int]:
    """What a model took over what its bill says (`corrections`), and of how many episodes that is known.

    By what the same label run says of this dataset; where it says nothing, of any dataset of this workspace.
    """
    run = build.label_run().id
    labels = lake.dicts(
        "SELECT dataset, episode_index FROM episode_labels WHERE label_run = ? ORDER BY ALL", [run]
    )
    # The model was asked about those that follow no others
    not_asked = followers(lake.con, run)
    labels = [r for r in labels if (r["dataset"], r["episode_index"]) not in not_asked]
    dataset_labels = [r for r in labels if r["dataset"] == build.name] or labels
    # Evenly over the labelled episodes, in their order
    pilots = dataset_labels[:: max(1, -(-len(dataset_labels) // PILOTS))]
    if not pilots:
        return {}, 0

    # Their shapes and the calls that they took, dataset by dataset
    shapes: list[KeyframeSeries] = []
    calls: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(r["dataset"] for r in pilots):
        episodes = {r["episode_index"] for r in pilots if r["dataset"] == dataset}
        shapes += _known(lake, dataset, episodes).values()
        call_rows = lake.dicts(
            "SELECT * FROM vlm_calls WHERE dataset = ? AND label_run = ?", [dataset, run]
        )
        calls += [call for call in call_rows if call["episode_index"] in episodes]

    return corrections(build.stages.vlm, shapes, calls, rule), len(pilots)


# Pictures for an encoder


@dataclass(frozen=True)
class EmbeddingCost:
    """What a build will have an encoder look at; `cpu_s` on one thread, None where no rate of it was measured."""

    dataset: str
    encoder: str
    episodes: int
    pictures: int
    bytes: int
    cpu_s: float | None
    embedded: int  # episodes that are done
    left_out: int  # episodes whose length nothing says

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "dataset": self.dataset,
            "embeddings": {k: v for k, v in vars(self).items() if k != "dataset"},
        }

    def summary(self) -> str:
        """For people, in a sentence."""
        if self.cpu_s is None:
            time = "at a rate that nobody measured"
        else:
            time = f"some {self.cpu_s:.0f} s of one CPU core"
        done_note = f"; {self.embedded} episodes are done" if self.embedded else ""
        if self.left_out:
            unknown = f"; {self.left_out} left out: nothing says how long they are"
        else:
            unknown = ""
        return (
            f"{self.dataset}: {self.encoder} looks at {self.pictures} pictures of {self.episodes} episodes: {time}, "
            f"{self.bytes / 1e6:.1f} MB{done_note}{unknown}"
        )


def embedding_cost(
    lake: Lake | None, build: DatasetBuild, sources: Path, *, from_scratch: bool = False
) -> EmbeddingCost:
    """`from_scratch`: as if nothing had been looked at yet. Chunks whose embeddings are up to date cost nothing."""
    config = build.embeddings
    records = listed_records(lake, build, sources)
    embedded_chunks = _embedded(None if from_scratch else lake, build, sources)
    to_embed = [
        record
        for index, record in records.items()
        if index // build.dataset.chunk_size not in embedded_chunks
    ]

    pictures = sum(_pictures(record, config) for record in to_embed)
    ms = MS_A_PICTURE.get(config.encoder) if config.size_px is None else None
    return EmbeddingCost(
        dataset=build.name,
        encoder=config.encoder,
        episodes=len(to_embed),
        pictures=pictures,
        bytes=round(pictures * (WHOLE + CELL * config.grid**2) * BYTES_A_NUMBER),
        cpu_s=None if ms is None else pictures * ms / 1000,
        embedded=len(records) - len(to_embed),
        left_out=sum(not record.num_rows for record in to_embed),
    )


def _embedded(lake: Lake | None, build: DatasetBuild, sources: Path) -> set[int | None]:
    """The chunks whose embeddings are as a build would make them."""
    if lake is None:
        return set()
    steps = plan(
        lake, {build.name: stage_specs(build)}, {build.name: build.source(sources).fingerprint()}
    )
    return {
        step.chunk for step in steps if step.stage.name == "embeddings" and step.status == CURRENT
    }


def _pictures(record: EpisodeRecord, config: EmbeddingsConfig) -> int:
    """Pictures of an episode that are looked at, as if all its cameras can be used; 0: its length is unknown."""
    chosen_cameras = [
        camera for camera in record.cameras if config.cameras == "all" or camera in config.cameras
    ]
    if config.cameras == "preferred":
        count = min(1, len(record.cameras))
    else:
        count = len(chosen_cameras)
    return count * ceil((record.num_rows or 0) / every_nth(config.hz, record.fps))
