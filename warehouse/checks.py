"""Checks of a corpus: what has to hold before anything is built on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from warehouse.copies import near_copies
from warehouse.lake import Lake

MIN_DECODABLE = 0.5  # share of a chunk's episodes with video that must decode


@dataclass(frozen=True)
class CheckOutcome:
    passed: bool
    detail: str
    numbers: dict[str, float]


def decodable_coverage(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """At least half of a chunk's episodes that have video and rows decode: less is a broken source, not bad luck."""
    with_video, usable = lake.rows(
        "SELECT count(*), count(*) FILTER (status = 'ok') FROM episodes e WHERE dataset = ? AND chunk = ? "
        "AND NOT EXISTS (SELECT 1 FROM findings f WHERE f.dataset = e.dataset AND f.episode_index = e.episode_index "
        "AND f.stage = 'episodes' AND f.severity = 'unusable')",
        [dataset, chunk],
    )[0]
    share = usable / with_video if with_video else 1.0
    detail = f"{usable} of {with_video} episodes with video decode"
    return CheckOutcome(share >= MIN_DECODABLE, detail, {"decodable": share, "episodes": with_video})


def progress_sanity(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """Every usable episode of a chunk has an active label for each frame, in 0..1, that starts at 0."""
    here = [dataset, chunk]
    unlabelled = lake.rows(
        "SELECT count(*) FROM episodes e WHERE dataset = ? AND chunk = ? AND status = 'ok' AND num_frames <> "
        "(SELECT count(*) FROM active_progress p WHERE p.dataset = e.dataset AND p.chunk = e.chunk "
        "AND p.episode_index = e.episode_index)",
        here,
    )[0][0]
    outside, not_zero = lake.rows(
        "SELECT count(*) FILTER (NOT coalesce(progress BETWEEN 0 AND 1, false) OR isnan(progress)), "
        "count(*) FILTER (frame_index = 0 AND progress <> 0) FROM active_progress WHERE dataset = ? AND chunk = ?",
        here,
    )[0]
    detail = f"{unlabelled} episodes not labelled in full, {outside} labels outside 0..1, {not_zero} starts not at 0"
    numbers = {"unlabelled": unlabelled, "outside": outside, "starts_not_at_zero": not_zero}
    return CheckOutcome(unlabelled + outside + not_zero == 0, detail, numbers)


def split_leaks(lake: Lake, datasets: Sequence[str] | None = None) -> CheckOutcome:
    """Nothing of one split stands in another: no group, source record, episode content or near-copy of pictures.

    Of usable episodes; `datasets` None means all. `numbers` counts each kind.
    """
    names = list(datasets) if datasets is not None else [r[0] for r in lake.rows("SELECT dataset FROM datasets")]
    usable = (
        "FROM splits s JOIN episodes e USING (dataset, episode_index) WHERE e.status = 'ok' "
        "AND list_contains(?, e.dataset)"
    )
    twice = "GROUP BY 1, 2 HAVING count(DISTINCT s.split) > 1 ORDER BY 1, 2"
    groups = lake.rows(f'SELECT s.dataset, s."group" {usable} {twice}', [names])
    records = lake.rows(f"SELECT e.dataset, e.source_id, list(e.episode_index) {usable} {twice}", [names])
    twins = lake.rows(
        f"SELECT e.content_hash, list({{d: e.dataset, e: e.episode_index, s: s.split}} ORDER BY e.dataset, "
        f"e.episode_index) AS who {usable} AND e.content_hash IS NOT NULL GROUP BY 1 "
        "HAVING count(DISTINCT s.split) > 1 ORDER BY ALL",
        [names],
    )
    same = {frozenset((w["d"], w["e"]) for w in who) for _, who in twins}
    copies = [
        n
        for n in near_copies(lake, names)
        if not any({(n.dataset, n.episode_index), (n.of_dataset, n.of_episode)} <= s for s in same)
    ]
    examples = [f"group {g!r} of {d}" for d, g in groups[:3]]
    examples += [f"{d} {i}, which is episodes {_listed(e)}" for d, i, e in records[:3]]
    examples += [
        "a copy: " + " and ".join(f"{w['d']} episode {w['e']} ({w['s']})" for w in who[:3]) for _, who in twins[:3]
    ]
    examples += [str(n) for n in copies[:3]]
    detail = "no leak" if not examples else f"in more than one split: {'; '.join(examples)}"
    numbers = {"groups": len(groups), "records": len(records), "copies": len(twins), "near_copies": len(copies)}
    return CheckOutcome(not examples, detail, dict(numbers))


def _listed(episodes: Sequence[int]) -> str:
    return " and ".join(map(str, sorted(episodes)[:3]))
