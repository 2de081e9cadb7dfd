"""WebDataset tars of a chunk's samples: one entry per episode, each picture stored once."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.pictures import encode_jpeg, fitted_picture, shard_jpeg
from annotate.samples.edits import EDITED, OCCLUDED, covered_picture, edited_picture, load_editor
from core.files import write_file
from core.pictures import load_keyframe
from ingest.episode import EpisodeRecord, Finding, Picture
from ingest.reasons import DataError
from pipeline.config import DatasetBuild
from pipeline.picture_cache import PictureKey, PictureStore, kept_pictures
from pipeline.reading import records_of
from pipeline.stage import Output, StageContext
from warehouse.lake import Lake
from warehouse.lake.stored import coarse_keyframes, rows_of_episode
from warehouse.measured import ChangedError, MeasuredSource
from warehouse.shards.shard import EntryContent, picture_name, shards_stage

# The pictures of one episode that samples show, each with the instruction that its edit follows, if an editor makes it
WantedPictures = Mapping[PictureKey, str | None]


def run(context: StageContext) -> Output:
    """Of what the frames stage has not kept, each episode is decoded once.

    Samples whose pictures cannot be had are left out, with a finding.
    """
    lake = context.lake
    build = context.build
    samples = context.rows.arrow(
        "SELECT * EXCLUDE (chunk) FROM samples WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, family, sample_id",
        [build.name, context.chunk],
    )
    cached_frames = context.kept()
    pictures_by_episode = _wanted_by_episode(samples)
    # Patches that cover something look like the run around them
    covered_episodes = {
        key[0]
        for keys in pictures_by_episode.values()
        for key in keys
        if key[3].startswith(OCCLUDED)
    }
    records = context.records()
    outer_episodes = pictures_by_episode.keys() - {record.episode_index for record in records}
    reader = lake if covered_episodes & outer_episodes else context.rows
    keyframes = coarse_keyframes(reader, build.name, covered_episodes)
    source = MeasuredSource(lake, context.source)

    findings = []
    decoded_frames = 0
    with kept_pictures(lake.workspace, cached_frames) as pictures:
        # First every picture that a sample shows is put into the file ...
        for record in context.each([*records, *records_of(lake, build.name, outer_episodes)]):
            if record.episode_index in pictures_by_episode:
                decoder = PictureDecoder(lake, build, source, record, pictures, keyframes)
                findings_of_pictures = decoder.decode(pictures_by_episode[record.episode_index])
                # Another chunk's episode is not this one's to judge
                findings += (
                    _lost_beyond(samples, findings_of_pictures)
                    if record.episode_index in outer_episodes
                    else findings_of_pictures
                )
                decoded_frames += decoder.decoded_frames
        # ... then the entries are written: a sample may show pictures of other episodes, too
        entries = _entries(build.name, samples, pictures)
        config = build.stages.shards
        tables = shards_stage(
            lake.workspace, build.name, context.chunk, entries, config.target_bytes, config.store
        )

    numbers = {
        "decoded_frames": decoded_frames,
        "bytes": sum(tables["shards"]["bytes"].to_pylist()),
        "episodes": sum(tables["shards"]["episodes"].to_pylist()),
        "samples_left_out": samples.num_rows - tables["sample_location"].num_rows,
    }
    return Output(tables, findings, numbers=numbers)


def picture_key(picture: Mapping[str, Any]) -> PictureKey:
    """The key of an element of `samples.pictures`."""
    return picture["episode_index"], picture["camera"], picture["frame_index"], picture["edit"]


def _wanted_by_episode(samples: pa.Table) -> dict[int, dict[PictureKey, str | None]]:
    """The pictures that samples show, by the episode that is shown."""
    pictures_by_episode: dict[int, dict[PictureKey, str | None]] = {}
    for pictures, instruction in zip(
        samples["pictures"], samples["edit_instruction"].to_pylist(), strict=True
    ):
        for key in map(picture_key, pictures.as_py()):
            pictures_by_episode.setdefault(key[0], {})[key] = instruction
    return pictures_by_episode


def _lost_beyond(samples: pa.Table, picture_findings: Sequence[Finding]) -> Iterator[Finding]:
    """What was lost of an episode of another chunk, as warnings of the episodes whose samples show it."""
    rows = samples.select(["episode_index", "pictures"]).to_pylist() if picture_findings else []
    for finding in picture_findings:
        detail = f"camera {finding.camera}: {finding.detail}"
        picture_episode = finding.episode_index
        showing = {
            r["episode_index"]
            for r in rows
            if any(p["episode_index"] == picture_episode for p in r["pictures"])
        }
        for episode in sorted(showing):
            yield Finding(
                finding.reason, f"of episode {picture_episode}, {detail}", "warning", episode
            )


def _entries(
    dataset: str, samples: pa.Table, pictures: PictureStore
) -> Iterator[tuple[str, EntryContent]]:
    """(split, entry) of each episode that has a sample whose pictures are all there."""
    episode_of_row = samples["episode_index"].to_numpy()
    for episode_index in np.unique(episode_of_row).tolist():
        rows = samples[rows_of_episode(episode_of_row, episode_index)].to_pylist()
        # A picture may be lost with a damaged video: its samples are left out, the others stay
        whole = [
            row for row in rows if pictures.places.keys() >= set(map(picture_key, row["pictures"]))
        ]
        if not whole:
            continue
        # By name, so that a picture which several samples show is in the entry once
        keys_by_name = {
            picture_name(episode_index, p): picture_key(p) for row in whole for p in row["pictures"]
        }
        jpegs = {name: pictures.get(key) for name, key in keys_by_name.items()}
        yield whole[0]["split"], EntryContent(dataset, episode_index, whole, jpegs)


@dataclass
class PictureDecoder:
    """Puts the pictures of one episode that samples show into a file, in one pass per camera.

    keyframes: names of pictures by episode and camera, then by frame, of episodes some of whose
    pictures are covered.
    """

    lake: Lake
    build: DatasetBuild
    source: MeasuredSource
    record: EpisodeRecord
    pictures: PictureStore
    keyframes: Mapping[tuple[int, str], Mapping[int, str]]
    decoded_frames: int = 0
    _runs: dict[str, dict[int, np.ndarray]] = field(
        default_factory=dict
    )  # keyframes by camera and frame

    def decode(self, instructions: WantedPictures) -> list[Finding]:
        """Add those that the file lacks; a finding for each camera of which some cannot be had. Of
        an episode that is another recording by now the file keeps none."""
        for key, instruction in instructions.items():
            if frame := self.pictures.frame(key):
                self.pictures.put(key, self._shard_jpeg(frame, key, instruction))
        keys_of_camera: dict[str, dict[int, list[PictureKey]]] = {}
        # The file holds those of the whole chunk: they are not gone through for each episode
        for key in sorted(key for key in instructions if key not in self.pictures.places):
            _, camera, frame, _ = key
            keys_of_camera.setdefault(camera, {}).setdefault(frame, []).append(key)

        findings = []
        episode = None
        for camera, keys_of_frame in sorted(keys_of_camera.items()):
            # A video that breaks off may still have given some pictures: what is lost is counted afterwards
            detail = ""
            try:
                episode = episode or self.source.episode(self.record)
                for frame, picture in episode.decoded(camera, keys_of_frame):
                    self.decoded_frames += 1
                    for key in keys_of_frame.get(frame, ()):
                        self.pictures.put(key, self._shard_jpeg(picture, key, instructions[key]))
            except ChangedError as e:
                self.pictures.places = {
                    key: place
                    for key, place in self.pictures.places.items()
                    if key[0] != self.record.episode_index
                }
                return [e.finding]
            except DataError as e:
                detail = f": {e}"
            missing_keys = [
                key
                for keys in keys_of_frame.values()
                for key in keys
                if key not in self.pictures.places
            ]
            if missing_keys:
                text = (
                    f"{len(missing_keys)} pictures that samples show cannot be had any more{detail}"
                )
                findings.append(
                    Finding(
                        "undecodable_video", text, "unusable", self.record.episode_index, camera
                    )
                )
        return findings

    def _shard_jpeg(self, picture: Picture, key: PictureKey, instruction: str | None) -> bytes:
        """A picture as it goes into a shard: edited where the sample asks for it, made smaller, encoded."""
        config = self.build.stages.shards
        episode_index, camera, frame_index, edit = key
        kind, _, seed = edit.partition("-")
        if kind == EDITED and instruction is not None:
            folder = self.lake.workspace.edits(self.build.name, episode_index)
            return _by_editor(folder, self.build, picture.rgb(), instruction, int(seed, 16))
        if kind == OCCLUDED:
            # The episode's keyframes by a camera, read once
            if camera not in self._runs:
                keyframes = self.keyframes.get((episode_index, camera), {})
                load = partial(load_keyframe, self.lake.workspace)
                self._runs[camera] = {frame: load(sha256) for frame, sha256 in keyframes.items()}
            # Covered at the size in which it is shown: patches are as sharp as the rest
            rgb = fitted_picture(picture.rgb(), config.picture_max_px)
            patched = covered_picture(rgb, self._runs[camera], frame_index, int(seed, 16))
            return encode_jpeg(patched, config.picture_max_px, config.jpeg_quality)[0]
        return shard_jpeg(picture, config.picture_max_px, config.jpeg_quality)


def _by_editor(
    folder: Path, build: DatasetBuild, rgb: np.ndarray, instruction: str, seed: int
) -> bytes:
    """A picture that an image editor made, kept in `folder`: a model is not asked twice, and would not answer alike."""
    name = build.stages.samples.image_editor
    config = build.stages.shards
    assert name is not None, "an edited picture without an editor"
    settings = f"{name}\0{instruction}\0{seed}\0{config.picture_max_px}\0{config.jpeg_quality}\0{rgb.shape}\0"
    path = folder / f"{hashlib.sha256(settings.encode() + rgb.tobytes()).hexdigest()}.jpg"
    if not path.exists():
        picture = edited_picture(rgb, instruction, seed, load_editor(name), name)
        write_file(path, encode_jpeg(picture, config.picture_max_px, config.jpeg_quality)[0])
    return path.read_bytes()
