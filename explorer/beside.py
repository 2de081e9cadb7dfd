"""Runs that are labelled like a reference, the most doubtful first, each laid beside its reference moment by moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from explorer.access import LakeReader
from explorer.episode import OF_EPISODE, LakeEpisode
from explorer.index import Indexed
from explorer.labelling import knows_references

UNSURE = 0.7  # steps that are less sure are named, so that one looks there
MOST_NAMED = 3
DETOUR = "detour"  # kind of a span in which the run does what the reference does not show

# Labels that follow a reference and count, which nobody has judged yet
QUEUE_SQL = """
    SELECT a.episode_index, l.confidence
    FROM active_runs a JOIN label_runs r USING (label_run)
    JOIN episode_labels l ON l.dataset = $1 AND l.episode_index = a.episode_index AND l.label_run = a.label_run
    WHERE a.dataset = $1 AND r.annotator = 'transfer' AND a.episode_index NOT IN (
      SELECT episode_index FROM current_corrections WHERE dataset = $1 AND status <> 'review')"""
ALIGNMENT_SQL = f"""
    SELECT frame_index, reference_episode, reference_frame, follows FROM alignments {OF_EPISODE} AND label_run = $4
    ORDER BY frame_index"""


@dataclass(frozen=True)
class QueuedRun:
    """A run of the queue; score: of the review queue, how likely its label is wrong. why: the signs of it."""

    episode_index: int
    confidence: float | None
    score: float
    why: list[str]


@dataclass(frozen=True)
class Aligned:
    """Which frame of the reference each looked-at frame of a run is like, by frame; lists of equal length.

    follows: False where the run does what the reference does not show.
    """

    reference: int
    frames: list[int]
    reference_frames: list[int]
    follows: list[bool]

    def facts(self) -> dict[str, Any]:
        return {"frames": self.frames, "reference_frames": self.reference_frames, "follows": self.follows}


def doubtful(reader: LakeReader, indexed: Indexed, dataset: str) -> list[QueuedRun]:
    """The queue of a dataset, the most doubtful first; empty of a lake of before references."""
    if not knows_references(reader):
        return []
    signs = {
        row["episode_index"]: (row["score"], row["why"])
        for row in indexed.dicts("SELECT episode_index, score, why FROM review WHERE dataset = $of", of=dataset)
    }
    queue = [
        QueuedRun(episode, confidence, *signs.get(episode, (0.0, [])))
        for episode, confidence in reader.rows(QUEUE_SQL, dataset)
    ]
    return sorted(queue, key=lambda d: (-d.score, 1.0 if d.confidence is None else d.confidence, d.episode_index))


def aligned(reader: LakeReader, episode: LakeEpisode, label_run: str) -> Aligned | None:
    """How a run's label follows its reference; None: it is none that does."""
    rows = reader.rows(ALIGNMENT_SQL, *episode.key, label_run)
    if not rows:
        return None
    reference = rows[0][1]
    of_it = [(frame, at, follows) for frame, of, at, follows in rows if of == reference]
    frames, reference_frames, follows = (list(column) for column in zip(*of_it, strict=True))
    return Aligned(reference, frames, reference_frames, follows)


def carried(beside: Aligned, segments: Sequence[dict[str, Any]], num_frames: int) -> list[dict[str, Any]]:
    """A reference's segments on the run's frames: where it shows them, in the order in which the run does.

    segments: of the reference, tiling it. What the run does besides is of the kind DETOUR.
    """
    # Half way to its neighbours a looked-at frame ends
    ends = [(a + b + 1) // 2 for a, b in zip(beside.frames, beside.frames[1:], strict=False)]
    shown = [
        _segment_at(segments, at) if follows else None
        for at, follows in zip(beside.reference_frames, beside.follows, strict=True)
    ]
    spans: list[dict[str, Any]] = []
    bounds = zip([0, *ends], [*ends, num_frames], shown, strict=True)
    for place, of_place in groupby(bounds, key=lambda bound: bound[2]):
        part = list(of_place)
        segment = {"name": "not in the reference", "kind": DETOUR} if place is None else segments[place]
        spans.append({**segment, "start_frame": part[0][0], "end_frame": part[-1][1]})
    return spans


def _segment_at(segments: Sequence[dict[str, Any]], frame: int) -> int | None:
    """The place of the segment that holds a frame; None: none does."""
    for place, segment in enumerate(segments):
        if segment["start_frame"] <= frame < segment["end_frame"]:
            return place
    return None


def unsure_steps(segments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps that are the least sure, if they are not sure, in order of time."""
    unsure = [s for s in segments if s["confidence"] is not None and s["confidence"] < UNSURE]
    least = sorted(unsure, key=lambda s: s["confidence"])[:MOST_NAMED]
    return sorted(least, key=lambda s: s["start_frame"])
