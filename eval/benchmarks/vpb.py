"""The Video Progress Benchmark (VLAC-Cut, arXiv 2607.09776): progress that people gave to keyframes of robot runs.

-100 to 100: 0 is the run's beginning, 100 the task done; what is worse than the beginning counts as 0. The names of a
record's parts are published, those within them not: what cannot be told is refused with the names that are there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from annotate.config import SamplesConfig
from annotate.samples.procvqa import progress_question, window
from eval.benchmarks import procvqa
from eval.benchmarks.question import BenchmarkError, Data, Question, has_file, picture_in, read_row

# A clock is near the top on runs without a step back, which experts' are
PARTS = (
    "test_nonexpert_seen",
    "test_nonexpert_unseen",
    "test_expert_seen",
    "test_expert_unseen",
)
# In the benchmark's repository, and in that of all data
PLACES = ("splits/{}.json", "benchmark_style_all/{}/video_progress_benchmark_file.json")
FRAMES_ROOT = "__VLAC2_FRAMES_ROOT__/"


class VpbRecord(BaseModel):
    """`frame_index`: where pictures lie, of all frames for each view, or of all views for each frame."""

    metadata: dict[str, Any]
    frame_index: Annotated[dict[str, list[str]] | list[dict[str, str]], Field(min_length=1)]
    semantic_anchors: list[dict[str, Any]]

    def first_view(self) -> tuple[str, list[str]]:
        """Its name, and the places of its pictures, one for each frame."""
        if isinstance(self.frame_index, dict):
            return next(iter(self.frame_index.items()))
        view = next(iter(self.frame_index[0]), "")
        return view, [places.get(view, "") for places in self.frame_index]


class Keyframe(BaseModel):
    instruction: str
    fps: Annotated[float, Field(gt=0)]
    frame: Annotated[int, Field(ge=0)]
    annotated_progress: Annotated[float, Field(ge=-100, le=100)]


def load(data: Data) -> Iterator[Question]:
    """A question at each keyframe of the first `limit` records of each part; `image_root`: the frames, as the
    publication's script takes them out of the videos. Raises BenchmarkError, which names the record; SourceError."""
    source = data.source()
    for part in data.parts:
        uris = [place.format(part) for place in PLACES]
        uri = next((uri for uri in uris if has_file(source, uri)), None)
        if uri is None:
            raise BenchmarkError(f"{data.address} holds no {' and no '.join(uris)}")
        content = source.resolve(uri).read_bytes()
        records = read_row(TypeAdapter(list[VpbRecord]).validate_json, content, uri)
        for number, record in enumerate(records[: data.asked.limit]):
            yield from _questions(f"{uri}: record {number}", part, number, record, data)


def _questions(
    name: str, part: str, number: int, record: VpbRecord, data: Data
) -> Iterator[Question]:
    camera, places = record.first_view()
    facts = _values(record.metadata, ("instruction", "fps"), name)
    for anchor in record.semantic_anchors:
        facts |= _values(anchor, ("frame", "annotated_progress"), name)
        keyframe = read_row(Keyframe.model_validate, facts, name)
        if keyframe.frame >= len(places):
            raise BenchmarkError(f"{name}: keyframe {keyframe.frame} of {len(places)} frames")
        row = {
            "dataset": data.asked.benchmark,
            "episode_index": number,
            "split": part,
            "family": "progress",
            "camera": camera,
            "frames": window(keyframe.frame, keyframe.fps, SamplesConfig()),
            "num_frames": len(places),
            "fps": keyframe.fps,
            "progress": max(0, keyframe.annotated_progress) / 100,
        }
        yield replace(
            question(data.asked.benchmark, row),
            goal=keyframe.instruction,
            text=progress_question(keyframe.instruction, len(row["frames"])),
            pictures=tuple(
                picture_in(data.frames, places[f].removeprefix(FRAMES_ROOT)) for f in row["frames"]
            ),
        )


def _values(fields: Mapping[str, Any], words: Sequence[str], name: str) -> dict[str, Any]:
    """By word the value of the one field with it in its name. Raises BenchmarkError for none, and
    for several."""
    values = {}
    for word in words:
        matches = [field for field in fields if word in field]
        if len(matches) != 1:
            raise BenchmarkError(
                f"{name}: {len(matches)} of {', '.join(fields)} say its {word}, not one"
            )
        values[word] = fields[matches[0]]
    return values


def question(benchmark: str, raw: Mapping[str, Any]) -> Question:
    """The question of a row, without its words and pictures; runs with steps back come first. Raises ValueError."""
    q = procvqa.question(benchmark, raw)
    part = str(raw.get("split"))
    return replace(
        q, part=part, unit=(part, *q.unit), slices=(f"part {1 + PARTS.index(part)} {part}",)
    )
