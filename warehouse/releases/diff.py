"""What differs between two releases, each read at its own snapshot, or between two label runs of the present lake."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from warehouse.lake import Lake, attach
from warehouse.releases.contents import ReleaseError, held_episodes_sql
from warehouse.releases.release import Release, get_release

WORST = 20
SAME_PROGRESS = 1e-6  # mean |difference| below which two labels are one


@dataclass(frozen=True)
class Change:
    """One episode that is in both; None where a side lacks what would be compared."""

    dataset: str
    episode_index: int
    run_a: str
    run_b: str
    boundaries_a: int
    boundaries_b: int
    mean_shift_s: float | None  # how far boundaries moved
    max_shift_s: float | None
    progress_difference: float | None  # mean |difference| over the frames


@dataclass(frozen=True)
class Diff:
    a: str
    b: str
    datasets: list[dict]  # per dataset: counts and means
    added: list[tuple[str, int]]
    removed: list[tuple[str, int]]
    relabelled: list[Change]

    @property
    def worst(self) -> list[Change]:
        """Those whose labels moved most."""
        order = sorted(self.relabelled, key=lambda c: (-(c.progress_difference or 0), -(c.max_shift_s or 0)))
        return order[:WORST]

    def facts(self) -> dict:
        """As JSON has it."""
        return {
            "a": self.a,
            "b": self.b,
            "datasets": self.datasets,
            "added": [{"dataset": d, "episode_index": e} for d, e in self.added],
            "removed": [{"dataset": d, "episode_index": e} for d, e in self.removed],
            "relabelled": len(self.relabelled),
            "worst": [c.__dict__ for c in self.worst],
        }


def diff_releases(lake: Lake, a: str, b: str) -> Diff:
    """What B holds otherwise than A. Raises ReleaseError and LakeError."""
    left, right = get_release(lake, a), get_release(lake, b)
    with _sides(lake, left.snapshot, right.snapshot):
        _labels_of_release(lake, "a", left)
        _labels_of_release(lake, "b", right)
        return _diff(lake, a, b)


def diff_runs(lake: Lake, run_a: str, run_b: str) -> Diff:
    """How two label runs differ on the episodes that both labelled; runs by the beginning of their ids."""
    runs = [_label_run(lake, run_a), _label_run(lake, run_b)]
    with _sides(lake, lake.snapshot(), lake.snapshot()):
        for side, run in zip("ab", runs, strict=True):
            lake.con.execute(
                f"CREATE OR REPLACE TEMP TABLE labels_{side} AS SELECT dataset, episode_index, chunk, label_run "
                "FROM episode_labels WHERE label_run = ?",
                [run],
            )
        return _diff(lake, *runs)


def _label_run(lake: Lake, beginning: str) -> str:
    """The one label run whose id begins so. Raises ReleaseError for none or several."""
    runs = lake.column("SELECT label_run FROM label_runs ORDER BY created_at")
    fitting = [r for r in runs if r.startswith(beginning)]
    if len(fitting) != 1:
        problem = "several label runs begin with" if fitting else "there is no label run"
        raise ReleaseError(f"{problem} {beginning!r}; label runs: {', '.join(fitting or runs) or 'none yet'}")
    return fitting[0]


@contextmanager
def _sides(lake: Lake, snapshot_a: int, snapshot_b: int) -> Iterator[None]:
    """The lake at two of its snapshots, attached as `a` and `b`."""
    with ExitStack() as attached:
        for side, snapshot in (("a", snapshot_a), ("b", snapshot_b)):
            attach(lake.con, lake.workspace, side, snapshot)
            attached.callback(lake.con.execute, f"DETACH {side}")
        yield


def _labels_of_release(lake: Lake, catalog: str, release: Release) -> None:
    """List the episodes of a release with the label that counted."""
    lake.con.execute(
        f"CREATE OR REPLACE TEMP TABLE labels_{catalog} AS SELECT r.dataset, r.episode_index, r.chunk, r.label_run "
        f"FROM {catalog}.active_runs r SEMI JOIN ({held_episodes_sql(catalog)}) held USING (dataset, episode_index)",
        [[s.shard for s in release.shard_list]],
    )


_BOTH = "labels_a a JOIN labels_b b USING (dataset, episode_index)"
_PROGRESS = f"""
SELECT a.dataset, a.episode_index, avg(abs(p.progress - q.progress)) AS difference, count(*) AS frames
FROM {_BOTH}
JOIN a.progress p ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
                 AND p.label_run = a.label_run
JOIN b.progress q ON q.dataset = b.dataset AND q.chunk = b.chunk AND q.episode_index = b.episode_index
                 AND q.label_run = b.label_run AND q.frame_index = p.frame_index
GROUP BY ALL"""


def _segments(catalog: str) -> str:
    return (
        f"SELECT l.dataset, l.episode_index, "
        "list({s: s.start_frame, e: s.end_frame, n: s.name, k: s.kind, c: s.completed} ORDER BY s.segment_index) "
        "AS list "
        f"FROM labels_{catalog} l JOIN {catalog}.segments s ON s.dataset = l.dataset AND s.chunk = l.chunk "
        "AND s.episode_index = l.episode_index AND s.label_run = l.label_run GROUP BY ALL"
    )


def _diff(lake: Lake, name_a: str, name_b: str) -> Diff:
    """Compare the tables labels_a and labels_b, episode by episode and dataset by dataset."""
    both = lake.dicts(
        f"WITH p AS ({_PROGRESS}), sa AS ({_segments('a')}), sb AS ({_segments('b')}) "
        "SELECT a.dataset, a.episode_index, a.label_run AS run_a, b.label_run AS run_b, p.difference, "
        "sa.list AS segments_a, sb.list AS segments_b, c.fps, "
        f"coalesce(p.difference, 0) <= {SAME_PROGRESS} AND sa.list IS NOT DISTINCT FROM sb.list "
        f"AND a.label_run = b.label_run AS same FROM {_BOTH} "
        "LEFT JOIN p USING (dataset, episode_index) LEFT JOIN sa USING (dataset, episode_index) "
        "LEFT JOIN sb USING (dataset, episode_index) LEFT JOIN b.episode_content c USING (dataset, episode_index) "
        "ORDER BY 1, 2"
    )
    # Episodes in both releases may have another label; those in one only have none to compare with
    relabelled = [_change(episode) for episode in both if not episode["same"]]
    only_in = (
        "SELECT dataset, episode_index FROM labels_{} ANTI JOIN labels_{} USING (dataset, episode_index) ORDER BY ALL"
    )
    added, removed = lake.rows(only_in.format("b", "a")), lake.rows(only_in.format("a", "b"))
    counts = {"in_both": Counter(episode["dataset"] for episode in both)}
    counts |= {"added": Counter(dataset for dataset, _ in added), "removed": Counter(dataset for dataset, _ in removed)}
    datasets = [
        {"dataset": name}
        | {what: of_datasets[name] for what, of_datasets in counts.items()}
        | _means([change for change in relabelled if change.dataset == name])
        for name in sorted(set().union(*counts.values()))
    ]
    return Diff(name_a, name_b, datasets, added, removed, relabelled)


def _change(episode: Mapping[str, Any]) -> Change:
    """One row of the comparison in `_diff`."""
    # Frames where a segment begins, but for the first, which begins at 0 in every label
    starts_a, starts_b = ([s["s"] for s in (episode[side] or [])[1:]] for side in ("segments_a", "segments_b"))
    fps = episode["fps"]
    shifts_s = [frames / fps for frames in boundary_moves(starts_a, starts_b)] if fps else []
    return Change(
        **{name: episode[name] for name in ("dataset", "episode_index", "run_a", "run_b")},
        boundaries_a=len(starts_a),
        boundaries_b=len(starts_b),
        mean_shift_s=_mean(shifts_s),
        max_shift_s=max(shifts_s, default=None),
        progress_difference=episode["difference"],
    )


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


def _means(changes: Sequence[Change]) -> dict[str, Any]:
    """How far the labels of a dataset moved: means and maximum over its relabelled episodes."""
    return {
        "relabelled": len(changes),
        "mean_shift_s": _mean([c.mean_shift_s for c in changes]),
        "max_shift_s": max((c.max_shift_s for c in changes if c.max_shift_s is not None), default=None),
        "progress_difference": _mean([c.progress_difference for c in changes]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
