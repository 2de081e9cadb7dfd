"""What an episode is laid beside: another label or a model's answers, and the reference that its label follows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby, pairwise
from typing import Any

from core.domain.label import Episode
from core.files import queries_of
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.charts import Curve
from explorer.site import BASELINES

SAME_S = 0.25  # boundaries nearer than this are the same
UNSURE = 0.7  # steps that are less sure are named, so that one looks there
MOST_NAMED = 3
NOT_SHOWN = {"name": "not in the reference", "kind": "detour"}  # what the run does besides
[ALIGNMENT_SQL] = queries_of(__file__)


def run_name(run: dict[str, Any]) -> str:
    """What a label run is called on a page: who made it, and enough of its name to tell two apart."""
    return f"{run['model'] or run['annotator']} {run['label_run'][:8]}"


def compared(data: dict[str, Any], episode: Episode, names: Sequence[str]) -> dict[str, Any]:
    """Two sides of an episode beside each other: all `sides`, the `chosen` ones, `lines` of
    progress, drawn `spans` of those with segments, how many boundaries `moved`, how far
    progress is `apart` on average.

    names: label runs or evaluations; "": the label that counts, and the next one. Raises PageError.
    """
    sides = comparable_sides(data)
    chosen = [*filter(None, (_side_named(sides, name, k) for k, name in enumerate(names)))]
    lines = [
        replace(side["curve"], name=side["title"], kind=f"line run{k}")
        for k, side in enumerate(chosen)
    ]
    moved_ends = [frozenset[int]()] * len(chosen)
    if len(chosen) > 1 and all(side["segments"] for side in chosen):
        first, second = (side["boundaries"] for side in chosen)
        # A tolerance in seconds means the same at any frame rate; boundaries are counted in frames
        moved_ends = moved_boundaries(first, second, round(SAME_S * (episode.fps or 1.0)))
    return {
        "sides": sides,
        "chosen": chosen,
        "lines": lines,
        "spans": [
            (side["run"], charts.spans(side["segments"], episode.num_frames, ends))
            for side, ends in zip(chosen, moved_ends, strict=True)
            if side["segments"]
        ],
        "moved": sum(map(len, moved_ends)),
        "apart": mean_difference(lines),
    }


def comparable_sides(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything of an episode that has a progress curve: label runs, then models, then baselines."""
    sides = []
    for run in data["runs"]:
        curve = Curve(run_name(run), range(len(run["progress"])), run["progress"], "line")
        title = curve.name + (" (active)" if run["active"] else "")
        sides.append(_side(run["label_run"], title, curve, run))
    for p in sorted(data["predictions"], key=lambda p: p["model"] in BASELINES):
        curve = Curve(p["model"], p["frames"], p["prediction"], "line")
        sides.append(_side(p["eval_run"], f"{p['model']}, {p['benchmark']}", curve, {}))
    return sides


def _side(name: str, title: str, curve: Curve, run: Mapping[str, Any]) -> dict[str, Any]:
    """`run`: of the label; empty where it is a model's answers."""
    segments = run.get("segments", ())
    return {
        "id": name,
        "title": title,
        "curve": curve,
        "run": run,
        "segments": segments,
        "boundaries": {segment["start_frame"] for segment in segments[1:]},
    }


def _side_named(sides: list[dict[str, Any]], name: str, place: int) -> dict[str, Any] | None:
    """What has a name; without a name what stands at `place`. Raises PageError."""
    side = next((s for s in sides if s["id"] == name), None)
    if name and side is None:
        raise PageError(f"this episode has no label run or evaluation {name[:40]!r}")
    return side or next(iter(sides[place : place + 1]), None)


def moved_boundaries(
    first: Collection[int], second: Collection[int], same: int
) -> list[frozenset[int]]:
    """Of each side, the boundaries that the other has nowhere within `same` frames.

    Example: {10, 30} and {12, 50}, with `same` 5, give {30} and {50}.
    """
    near_first = set(chain.from_iterable(range(b - same, b + same + 1) for b in first))
    near_second = set(chain.from_iterable(range(b - same, b + same + 1) for b in second))
    return [frozenset(first) - near_second, frozenset(second) - near_first]


def mean_difference(lines: list[Curve]) -> float | None:
    """Mean |difference| of two curves at the frames that both have; None where they share none."""
    values = [dict(zip(c.frames, c.values, strict=True)) for c in lines]
    shared = values[0].keys() & values[1].keys() if len(values) > 1 else ()
    pairs = [(values[0][frame], values[1][frame]) for frame in shared]
    differences = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    if differences:
        return sum(differences) / len(differences)
    return None


def alignment_of(
    reader: LakeReader, episode: Episode, run: Mapping[str, Any]
) -> dict[str, Any] | None:
    """How a label of an episode follows a `reference`, an episode: lists of equal length,
    `frames` of the run that were looked at, the `reference_frames` that each is like, and
    whether each `follows` it; None: it follows none.
    """
    if run["annotator"] != "transfer":
        return None
    rows = reader.rows(ALIGNMENT_SQL, [*episode.row_key, run["label_run"]])
    if not rows:
        return None
    reference = rows[0][1]
    aligned = [row for row in rows if row[1] == reference]
    return {
        "reference": reference,
        "frames": [frame for frame, *_ in aligned],
        "reference_frames": [frame for _, _, frame, _ in aligned],
        "follows": [follows for *_, follows in aligned],
    }


def camera_pair(
    data: dict[str, Any], of_reference: dict[str, Any], chosen: str | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]:
    """A camera of the run, the same of its reference, and the names of all that both
    have; those with videos first.
    """
    by_name = {camera["camera"]: camera for camera in of_reference["cameras"]}
    both = [camera for camera in data["cameras"] if camera["camera"] in by_name]
    if not both:
        return next(iter(data["cameras"]), None), next(iter(by_name.values()), None), []
    both.sort(key=lambda c: not (c["usable"] and c["video"] and by_name[c["camera"]]["video"]))
    camera = next((camera for camera in both if camera["camera"] == chosen), both[0])
    return camera, by_name[camera["camera"]], [camera["camera"] for camera in both]


def carried_segments(
    alignment: dict[str, Any], segments: Sequence[dict[str, Any]], num_frames: int
) -> list[dict[str, Any]]:
    """A reference's segments on the run's frames: where it shows them, in the order in
    which the run does.

    segments: of the reference, tiling it.
    """

    def segment_at(frame: int) -> dict[str, Any]:
        return next((s for s in segments if s["start_frame"] <= frame < s["end_frame"]), NOT_SHOWN)

    # Half way to its neighbours a looked-at frame ends
    ends = [(a + b + 1) // 2 for a, b in pairwise(alignment["frames"])]
    parts = zip(alignment["reference_frames"], alignment["follows"], strict=True)
    parts_shown = [
        segment_at(reference_frame) if follows else NOT_SHOWN for reference_frame, follows in parts
    ]
    spans: list[dict[str, Any]] = []
    for _, of_place in groupby(
        zip([0, *ends], [*ends, num_frames], parts_shown, strict=True), key=lambda part: id(part[2])
    ):
        part = list(of_place)
        spans.append({**part[0][2], "start_frame": part[0][0], "end_frame": part[-1][1]})
    return spans


def unsure_steps(segments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps that are the least sure, if they are not sure, in order of time."""
    unsure = [s for s in segments if s["confidence"] is not None and s["confidence"] < UNSURE]
    least_sure = sorted(unsure, key=lambda s: s["confidence"])[:MOST_NAMED]
    return sorted(least_sure, key=lambda s: s["start_frame"])
