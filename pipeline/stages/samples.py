"""The samples and shards stages on one chunk: what they read of the lake, and the pictures that samples show."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from annotate.frames import encode_jpeg
from annotate.samples import samples_stage
from annotate.samples.edits import EDITED, OCCLUDED, edited, load_editor, occluded
from annotate.samples.labelled_episode import LabelledEpisode
from core.files import write_file
from core.paths import Workspace
from ingest.episode import Episode, EpisodeRecord, Finding, RowsError
from ingest.media.video import DECODE_ALL, DecodeOptions, SkippedFrame, VideoError
from ingest.source import read_episode
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.stages.picture_cache import Key, Spool, kept_pictures
from pipeline.stages.reading import chunk_segments, usable_records
from warehouse.lake import Lake
from warehouse.shards import ShardEpisode, picture_name, shards_stage

Numbers = Mapping[str, int | float | str]


def sample_tables(lake: Lake, build: DatasetBuild, chunk: int | None) -> tuple[dict[str, pa.Table], Numbers]:
    """The samples of the labelled episodes of a chunk."""
    episodes = list(labelled_episodes(lake, build, chunk))
    samples = samples_stage(episodes, build.stages.samples)
    counts = samples["family"].value_counts().to_pylist()
    numbers = {"episodes": len(episodes)} | {f"family {c['values']}": c["counts"] for c in counts}
    return {"samples": samples}, numbers


def labelled_episodes(lake: Lake, build: DatasetBuild, chunk: int | None) -> Iterator[LabelledEpisode]:
    """The usable episodes of a chunk that have segments and progress, by their active labels."""
    here = [build.name, chunk]
    labelled = chunk_segments(lake, build.name, chunk)
    facts = lake.dicts(
        "SELECT e.episode_index, e.fps, coalesce(e.task, l.task) AS task, e.cameras, s.split, l.plan "
        "FROM episodes e JOIN splits s USING (dataset, episode_index) "
        "LEFT JOIN active_runs a USING (dataset, episode_index) LEFT JOIN episode_labels l ON l.dataset = e.dataset "
        "AND l.episode_index = e.episode_index AND l.label_run = a.label_run "
        "WHERE e.dataset = ? AND e.chunk = ? AND e.status = 'ok' ORDER BY 1",
        here,
    )
    sizes = {
        (episode, camera): (width, height)
        for episode, camera, width, height in lake.rows(
            "SELECT episode_index, camera, width_px, height_px FROM keyframes WHERE dataset = ? AND chunk = ? "
            "AND frame_index = 0 AND purpose = 'coarse'",
            here,
        )
    }
    reasons: dict[tuple[int, str], dict[int, str]] = {}
    for episode, run, frame, text in lake.rows(
        "SELECT episode_index, label_run, frame_index, text FROM reasoning WHERE dataset = ? AND chunk = ?", here
    ):
        reasons.setdefault((episode, run), {})[frame] = text
    table = lake.arrow(
        "SELECT episode_index, progress FROM active_progress WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, frame_index",
        here,
    )
    index, label = table["episode_index"].to_numpy(), table["progress"].to_numpy()
    for f in facts:
        episode = f["episode_index"]
        if episode not in labelled:
            continue
        segments, _, run = labelled[episode]
        start, count = _span(index, episode)
        yield LabelledEpisode(
            dataset=build.name,
            episode_index=episode,
            chunk=chunk or 0,
            split=f["split"],
            label_run=run,
            cameras={c: _in_shard(sizes.get((episode, c), (0, 0)), build) for c in f["cameras"]},
            fps=f["fps"],
            task=f["task"],
            segments=segments,
            progress=label[start : start + count],
            plan=tuple(f["plan"] or ()),
            reasons=reasons.get((episode, run), {}),
        )


def _in_shard(size: tuple[int, int], build: DatasetBuild) -> tuple[int, int]:
    scale = min(1.0, build.stages.shards.picture_max_px / max(1, *size))
    return round(size[0] * scale), round(size[1] * scale)


# Shards


def shard_tables(
    lake: Lake, build: DatasetBuild, chunk: int | None, source: Source
) -> tuple[dict[str, pa.Table], list[Finding], Numbers]:
    """Tars of a chunk's samples; of what the frames stage has not kept, each episode is decoded once.

    Samples whose pictures cannot be had are left out.
    """
    config = build.stages.shards
    samples = lake.arrow(
        "SELECT * EXCLUDE (chunk) FROM samples WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, family, sample_id",
        [build.name, chunk],
    )
    index = samples["episode_index"].to_numpy()
    wanted: dict[int, dict[Key, str | None]] = {}  # by the episode that is shown
    for pictures, instruction in zip(samples["pictures"], samples["edit_instruction"].to_pylist(), strict=True):
        for key in map(picture_key, pictures.as_py()):
            wanted.setdefault(key[0], {})[key] = instruction
    findings, decoded = [], 0
    with kept_pictures(lake, build.name, chunk) as spool:
        for record in usable_records(lake, build.name, chunk):
            if record.episode_index in wanted:
                count, found = decode_pictures(
                    lake.workspace, build, source, record, wanted[record.episode_index], spool
                )
                decoded += count
                findings += found

        def episodes() -> Iterator[tuple[str, ShardEpisode]]:
            for own in np.unique(index).tolist():
                rows = samples.slice(*_span(index, own)).to_pylist()
                whole = [r for r in rows if all(picture_key(p) in spool.places for p in r["pictures"])]
                if whole:
                    shown = {picture_name(own, p): picture_key(p) for r in whole for p in r["pictures"]}
                    pictures = {name: spool.get(key) for name, key in shown.items()}
                    yield whole[0]["split"], ShardEpisode(build.name, own, whole, pictures)

        tables = shards_stage(lake.workspace, build.name, chunk or 0, episodes(), config.target_bytes, config.store)
    numbers = {
        "decoded_frames": decoded,
        "bytes": sum(tables["shards"]["bytes"].to_pylist()),
        "episodes": sum(tables["shards"]["episodes"].to_pylist()),
        "samples_left_out": samples.num_rows - tables["sample_location"].num_rows,
    }
    return tables, findings, numbers


def picture_key(picture: Mapping) -> Key:
    return picture["episode_index"], picture["camera"], picture["frame_index"], picture["edit"]


def _span(index: np.ndarray, episode: int) -> tuple[int, int]:
    """First row and number of rows of an episode in a table ordered by episode."""
    a, b = np.searchsorted(index, [episode, episode + 1])
    return int(a), int(b - a)


def decode_pictures(
    workspace: Workspace,
    build: DatasetBuild,
    source: Source,
    record: EpisodeRecord,
    wanted: Mapping[Key, str | None],
    spool: Spool,
) -> tuple[int, list[Finding]]:
    """Put the wanted pictures of an episode that it lacks into the spool, in one pass per camera.

    Returns how many frames were decoded, and what failed.
    """
    by_frame: dict[str, dict[int, list[Key]]] = {}
    for key in sorted(wanted.keys() - spool.places.keys()):
        by_frame.setdefault(key[1], {}).setdefault(key[2], []).append(key)
    decoded, findings = 0, []
    for camera, frames in sorted(by_frame.items()):
        detail = ""
        try:
            decoded += _spooled(workspace, build, read_episode(source, record), camera, frames, wanted, spool)
        except (VideoError, RowsError) as e:
            detail = f": {e}"
        lost = [key for keys in frames.values() for key in keys if key not in spool.places]
        if lost:
            text = f"{len(lost)} pictures that samples show cannot be had any more{detail}"
            findings.append(Finding("pictures_lost", text, "unusable", record.episode_index, camera))
    return decoded, findings


def _spooled(
    workspace: Workspace,
    build: DatasetBuild,
    episode: Episode,
    camera: str,
    frames: Mapping[int, list[Key]],
    wanted: Mapping[Key, str | None],
    spool: Spool,
) -> int:
    """Put a camera's wanted pictures into the spool; how many frames were decoded.

    Only the groups of pictures that hold some are, where the video's groups stand by themselves. On one thread, so
    that a damaged video gives the same bytes each time.
    """
    last = max(frames)

    def spooled(options: DecodeOptions) -> int:
        decoded = 0
        for k, _, frame in episode.frames(camera, options):
            decoded += not isinstance(frame, SkippedFrame)
            for key in frames.get(k, ()):
                spool.put(key, _jpeg(workspace, build, frame.rgb(), key, wanted[key]))
            if k == last:
                break
        return decoded

    try:
        return spooled(DecodeOptions(wanted=frozenset(frames)))
    except VideoError:
        return spooled(DECODE_ALL)


def _jpeg(workspace: Workspace, build: DatasetBuild, rgb: np.ndarray, key: Key, instruction: str | None) -> bytes:
    config = build.stages.shards
    kind, _, seed = key[3].partition("-")
    if kind == EDITED and instruction is not None:
        return _by_editor(workspace.edits(build.name, key[0]), build, rgb, instruction, int(seed, 16))
    if kind == OCCLUDED:
        rgb = occluded(rgb, int(seed, 16))
    return encode_jpeg(rgb, config.picture_max_px, config.jpeg_quality)[0]


def _by_editor(folder: Path, build: DatasetBuild, rgb: np.ndarray, instruction: str, seed: int) -> bytes:
    """What an image editor made of a picture, kept: a model is not asked twice, and would not answer alike."""
    name, config = build.stages.samples.image_editor, build.stages.shards
    assert name is not None, "an edited picture without an editor"
    told = f"{name}\0{instruction}\0{seed}\0{config.picture_max_px}\0{config.jpeg_quality}\0{rgb.shape}\0"
    path = folder / f"{hashlib.sha256(told.encode() + rgb.tobytes()).hexdigest()}.jpg"
    if not path.exists():
        made = edited(rgb, instruction, seed, load_editor(name), name)
        write_file(path, encode_jpeg(made, config.picture_max_px, config.jpeg_quality)[0])
    return path.read_bytes()
