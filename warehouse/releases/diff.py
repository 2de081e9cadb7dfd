"""What differs between two releases, each read at its own snapshot, or between two label runs of the present lake."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from warehouse.lake import Lake
from warehouse.lake.connection import attach
from warehouse.releases.contents import ReleaseError, held_episodes_sql
from warehouse.releases.release import get_release

WORST = 20
SAME_PROGRESS = 1e-6  # mean |difference| below which two labels are one
# The episodes of a side, a or b, with the label that counts; the one parameter: names of shards, a label run
OF_RELEASE = (
    "SELECT r.dataset, r.episode_index, r.chunk, r.label_run FROM {0}.active_runs r "
    f"SEMI JOIN ({held_episodes_sql('{0}')}) held USING (dataset, episode_index)"
)
OF_RUN = "SELECT dataset, episode_index, chunk, label_run FROM {0}.episode_labels WHERE label_run = ?"


@dataclass(frozen=True)
class Diff:
    """`datasets`: counts and means of each. `relabelled`: of each episode that is in both with other labels, its
    dataset, episode_index, run_a, run_b, boundaries_a, boundaries_b, mean_shift_s and max_shift_s (how far boundaries
    moved) and progress_difference (mean over the frames); None where a side lacks what would be compared."""

    a: str
    b: str
    datasets: list[dict]
    added: list[tuple[str, int]]
    removed: list[tuple[str, int]]
    relabelled: list[dict[str, Any]]

    @property
    def worst(self) -> list[dict[str, Any]]:
        """Those whose labels moved most."""
        order = sorted(self.relabelled, key=lambda c: (-(c["progress_difference"] or 0), -(c["max_shift_s"] or 0)))
        return order[:WORST]

    def facts(self) -> dict:
        """As JSON has it."""
        places = {
            name: [{"dataset": d, "episode_index": e} for d, e in listed]
            for name, listed in (("added", self.added), ("removed", self.removed))
        }
        counts = {"relabelled": len(self.relabelled), "worst": self.worst}
        return {"a": self.a, "b": self.b, "datasets": self.datasets} | places | counts


def diff_releases(lake: Lake, a: str, b: str) -> Diff:
    """What B holds otherwise than A. Raises ReleaseError and LakeError."""
    releases = [get_release(lake, name) for name in (a, b)]
    sides = [(r.snapshot, [s.shard for s in r.shard_list]) for r in releases]
    return _diff(lake, a, b, OF_RELEASE, sides)


def diff_runs(lake: Lake, run_a: str, run_b: str) -> Diff:
    """How two label runs differ on the episodes that both labelled; runs by the beginning of their ids."""
    a, b = _label_run(lake, run_a), _label_run(lake, run_b)
    return _diff(lake, a, b, OF_RUN, [(lake.snapshot(), run) for run in (a, b)])


def _label_run(lake: Lake, beginning: str) -> str:
    """The one label run whose id begins so. Raises ReleaseError for none or several."""
    runs = lake.column("SELECT label_run FROM label_runs ORDER BY created_at")
    fitting = [r for r in runs if r.startswith(beginning)]
    if len(fitting) != 1:
        problem = "several label runs begin with" if fitting else "there is no label run"
        raise ReleaseError(f"{problem} {beginning!r}; label runs: {', '.join(fitting or runs) or 'none yet'}")
    return fitting[0]


_BOTH = "labels_a a JOIN labels_b b USING (dataset, episode_index)"
_PROGRESS = f"""
SELECT a.dataset, a.episode_index, avg(abs(p.progress - q.progress)) AS difference, count(*) AS frames
FROM {_BOTH}
JOIN a.progress p ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
                 AND p.label_run = a.label_run
JOIN b.progress q ON q.dataset = b.dataset AND q.chunk = b.chunk AND q.episode_index = b.episode_index
                 AND q.label_run = b.label_run AND q.frame_index = p.frame_index
GROUP BY ALL"""

_SEGMENTS = """
SELECT l.dataset, l.episode_index,
       list({{s: s.start_frame, e: s.end_frame, n: s.name, k: s.kind, c: s.completed}} ORDER BY s.segment_index) AS list
FROM labels_{0} l JOIN {0}.segments s ON s.dataset = l.dataset AND s.chunk = l.chunk
  AND s.episode_index = l.episode_index AND s.label_run = l.label_run GROUP BY ALL"""
BOTH_SIDES = f"""
WITH p AS ({_PROGRESS}), sa AS ({_SEGMENTS.format("a")}), sb AS ({_SEGMENTS.format("b")})
SELECT a.dataset, a.episode_index, a.label_run AS run_a, b.label_run AS run_b, p.difference,
       sa.list AS segments_a, sb.list AS segments_b, c.fps,
       coalesce(p.difference, 0) <= {SAME_PROGRESS} AND sa.list IS NOT DISTINCT FROM sb.list
         AND a.label_run = b.label_run AS same
FROM {_BOTH} LEFT JOIN p USING (dataset, episode_index) LEFT JOIN sa USING (dataset, episode_index)
LEFT JOIN sb USING (dataset, episode_index) LEFT JOIN b.episode_content c USING (dataset, episode_index)
ORDER BY 1, 2"""


def _diff(lake: Lake, name_a: str, name_b: str, labels: str, sides: Sequence[tuple[int, Any]]) -> Diff:
    """Compare, episode by episode and dataset by dataset, the labels that a query gives of the lake at the snapshot of
    each of two sides, with the parameter of each."""
    sql = "SELECT dataset, episode_index FROM labels_{} ANTI JOIN labels_{} USING (dataset, episode_index) ORDER BY ALL"
    with ExitStack() as attached:
        for side, (snapshot, value) in zip("ab", sides, strict=True):
            attach(lake.con, lake.workspace, side, snapshot)
            attached.callback(lake.con.execute, f"DETACH {side}")
            lake.con.execute(f"CREATE OR REPLACE TEMP TABLE labels_{side} AS {labels.format(side)}", [value])
        both = lake.dicts(BOTH_SIDES)
    in_one = {"added": lake.rows(sql.format("b", "a")), "removed": lake.rows(sql.format("a", "b"))}
    # Episodes on both sides may have another label; those on one only have none to compare with
    relabelled = [_change(episode) for episode in both if not episode["same"]]
    counts = {"in_both": Counter(map(itemgetter("dataset"), both))}
    counts |= {what: Counter(map(itemgetter(0), episodes)) for what, episodes in in_one.items()}
    datasets = [
        {"dataset": name}
        | {what: of_datasets[name] for what, of_datasets in counts.items()}
        | _moved([change for change in relabelled if change["dataset"] == name])
        for name in sorted(set().union(*counts.values()))
    ]
    return Diff(name_a, name_b, datasets, **in_one, relabelled=relabelled)


def _change(episode: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the comparison, of an episode whose labels differ."""
    # Frames where a segment begins, but for the first, which begins at 0 in every label
    starts_a, starts_b = ([s["s"] for s in (episode[side] or [])[1:]] for side in ("segments_a", "segments_b"))
    fps = episode["fps"]
    shifts_s = [frames / fps for frames in boundary_moves(starts_a, starts_b)] if fps else []
    of_both = {name: episode[name] for name in ("dataset", "episode_index", "run_a", "run_b")}
    counts = {"boundaries_a": len(starts_a), "boundaries_b": len(starts_b)}
    shifts = {"mean_shift_s": _mean(shifts_s), "max_shift_s": max(shifts_s, default=None)}
    return of_both | counts | shifts | {"progress_difference": episode["difference"]}


def boundary_moves(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Frames between boundaries that belong together: in order of time where both have as many, else each boundary of
    either side and the nearest of the other. Empty where a side has none.

    Examples: boundary_moves([10, 20], [22, 30]) == [12, 10]; boundary_moves([10], [8, 30]) == [2, 2, 20]
    """
    if len(a) == len(b):
        return [abs(x - y) for x, y in zip(a, b, strict=True)]
    if not a or not b:
        return []
    return [min(abs(x - y) for y in b) for x in a] + [min(abs(x - y) for x in a) for y in b]


def _moved(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the labels of a dataset moved: means and maximum over its relabelled episodes."""
    return {
        "relabelled": len(changes),
        "mean_shift_s": _mean([c["mean_shift_s"] for c in changes]),
        "max_shift_s": max((c["max_shift_s"] for c in changes if c["max_shift_s"] is not None), default=None),
        "progress_difference": _mean([c["progress_difference"] for c in changes]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
