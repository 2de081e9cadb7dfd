"""A source that is read again after the pass over its pictures: each episode has
to be the recording that was measured.

The pass kept hashes of an episode's rows, or of the bytes of its video where it
has no rows, and the mean luma of every picture. Whoever reads the source later
compares what is read with them, so that nothing of another recording is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from annotate.config import FRAMES_VERSION
from annotate.pictures import mean_luma
from core.errors import UserError
from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    Finding,
    SkippedFrame,
    TimedPicture,
    VideoError,
)
from ingest.reasons import CHANGED_DURING_BUILD, DataError
from ingest.recordings import KnownRecording, file_digest, file_stamp, rows_fingerprint
from ingest.source import read_episode
from ingest.sources.files import Source
from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.recordings import known_recordings

# Of a picture's mean luma, 0..1: four of 1024 cells by one of 255, as another version of a decoder may differ
MAX_LUMA = 4 / (255 * 1024)
# By episode the mean lumas of its pictures, by camera; none where another version of the code measured them
LUMAS = """
SELECT episode_index, map_from_entries(list((camera, lumas))) FROM (
  SELECT episode_index, camera, list(luma_mean ORDER BY frame_index) AS lumas
  FROM frames WHERE dataset = $1 AND chunk = $2 GROUP BY ALL)
WHERE $3 IN (SELECT code_version FROM stage_runs WHERE stage = 'frames' AND dataset = $1 AND chunk = $2)
GROUP BY ALL"""
type Lumas = Mapping[str, Sequence[float]]  # by camera


class ChangedError(VideoError, UserError):
    """The source holds another recording by now than was measured, or listed, at an episode's place."""

    def __init__(
        self, dataset: str, record: EpisodeRecord, problem: str, camera: str | None = None
    ) -> None:
        text = (
            f"{problem}: the source of {dataset} episode {record.episode_index} has changed: "
            "build the dataset again"
        )
        super().__init__(text, CHANGED_DURING_BUILD)
        place = record.episode_index, camera, record.data_uri or record.videos[0].uri
        self.finding = Finding(self.reason, text, "unusable", *place)


class MeasuredSource:
    """The source of a dataset whose pictures were measured."""

    def __init__(self, lake: LakeConnection, source: Source) -> None:
        self.source = source
        self.recordings = lru_cache(maxsize=2)(partial(measured_recordings, lake, source))

    def episode(self, record: EpisodeRecord) -> EpisodeData:
        """As `read_episode`. Raises ChangedError, as its frames do; what was not measured is not compared."""
        chunk = record.episode_index // self.source.config.chunk_size
        measured = self.recordings(chunk).get(record.episode_index)
        if measured is None:
            return read_episode(self.source, record)
        known, lumas = measured
        try:
            episode = read_episode(self.source, record)
            if known.fingerprint.rows not in (None, rows_fingerprint(episode).rows):
                raise DataError("its rows are not those that were measured")
            if known.fingerprint.file not in (None, file_digest(self.source, record)):
                raise DataError("its video is not the one that was measured")
        except (DataError, OSError) as e:
            # It could be read when it was measured
            if getattr(e, "reason", "unreadable_data") == "unreadable_data":
                raise ChangedError(self.source.config.name, record, str(e)) from e
            raise
        return replace(episode, frames=partial(_compared, self.source, episode, known, lumas))


def measured_recordings(
    lake: LakeConnection, source: Source, chunk: int
) -> dict[int, tuple[KnownRecording, Lumas]]:
    """By number the episodes of a chunk that were measured."""
    dataset = source.config.name
    lumas = dict(lake.rows(LUMAS, [dataset, chunk, FRAMES_VERSION]))
    condition = "r.dataset = ? AND r.left_at IS NULL AND list_contains(?, r.episode_index)"
    values = [dataset, [*lumas]]
    # A lake of an earlier version, as of a release, has no recordings
    contents = f"dataset = {literal(dataset)} AND chunk = {int(chunk)}"
    known = known_recordings(lake, condition, values, contents) if lumas else ()
    return {r.episode_index: (r, lumas[r.episode_index]) for r in known}


def _compared(
    source: Source,
    episode: EpisodeData,
    known: KnownRecording,
    lumas: Lumas,
    camera: str,
    options: DecodeOptions = DECODE_ALL,
) -> Iterator[TimedPicture]:
    """The frames of a camera, up to the first that does not show what was measured."""
    measured = lumas.get(camera)
    for index, time_s, picture in episode.frames(camera, options):
        is_needed = options.wanted is None or index in options.wanted
        if measured and is_needed and not isinstance(picture, SkippedFrame):
            luma = measured[index] if index < len(measured) else -1.0
            is_alike = abs(mean_luma(picture.luma()) - luma) <= MAX_LUMA
            # What a damaged video shows depends on how it is decoded
            if not is_alike and not _has_same_files(source, episode.record, known.decoded_stamp):
                problem = f"frame {index} of {camera} is not the one that was measured"
                raise ChangedError(source.config.name, episode.record, problem, camera)
        yield index, time_s, picture


def _has_same_files(source: Source, record: EpisodeRecord, stamp: str) -> bool:
    """Are an episode's files, which lie in no archive, those of a stamp?"""
    return record.videos[0].uri in source.files and file_stamp(source, record, now=True) == stamp
