"""What people said of an episode, and its labels as that makes them: at once, before a build takes it in."""

from typing import Any

from explorer.access import Reader
from warehouse.lake.corrections import ACCEPTED, REJECTED, segments_of


def said_of(reader: Reader, dataset: str, episode_index: int) -> dict[str, Any]:
    """The rows of an episode, oldest first; those that count; does the next build have something to do for it."""
    here = (dataset, episode_index)
    of_episode = "WHERE dataset = ? AND episode_index = ?"
    rows = reader.dicts(f"FROM corrections {of_episode} ORDER BY created_at, correction_id", *here)
    if not rows or not reader.has_view("pending_corrections"):
        return {"history": [], "newest": None, "current": [], "pending": False}
    current = reader.dicts(f"FROM current_corrections {of_episode}", *here)
    return {
        "history": [_readable(r) for r in rows],
        "newest": rows[-1]["correction_id"],
        "current": [_readable(r) for r in current],
        "pending": _is_pending(reader, dataset, episode_index, current),
    }


def _is_pending(reader: Reader, dataset: str, episode_index: int, current: list[dict[str, Any]]) -> bool:
    """As the view pending_corrections, of one episode: its tables are read in one chunk."""
    chunk = "(SELECT episode_index // chunk_size FROM datasets WHERE dataset = $1)"
    where = f"WHERE dataset = $1 AND chunk = {chunk} AND episode_index = $2"
    taken = reader.row(
        f"SELECT correction_id FROM episode_labels {where} AND correction_id IS NOT NULL", dataset, episode_index
    )
    accepted = next((c["correction_id"] for c in current if c["status"] == ACCEPTED), None)
    if accepted != (taken[0] if taken else None):
        return True
    rejected = [c["base_label_run"] for c in current if c["status"] == REJECTED]
    active = reader.row(f"SELECT label_run FROM active_runs {where}", dataset, episode_index) if rejected else None
    return active is not None and active[0] in rejected


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    segments = [s.__dict__ for s in segments_of(row)] if row["segments"] else None
    return row | {"segments": segments}


def labels_now(reader: Reader, dataset: str, episode_index: int, runs: list[dict]) -> list[dict]:
    """The labels of an episode as `label_runs` has them, with what people have said since the last build.

    A correction that no build has taken in stands first, without curves; a rejected label does not count.
    """
    said = said_of(reader, dataset, episode_index)
    if not said["pending"]:
        return runs
    accepted = next((c for c in said["current"] if c["status"] == ACCEPTED), None)
    rejected = {c["base_label_run"] for c in said["current"] if c["status"] == REJECTED}
    kept = [r | {"active": False} for r in runs if r["annotator"] != "human"]
    if accepted is None:
        before = next((r["label_run"] for r in runs if r["active"] and r["annotator"] != "human"), None)
        return [r | {"active": r["label_run"] == before and before not in rejected} for r in kept]
    human = {
        "label_run": f"human/{dataset}",
        "active": True,
        "why": "accepted correction; progress, samples and shards follow with the next build",
        "about": {},
        "annotator": "human",
        "model": None,
        "confidence": None,
        "segments": [
            s | {"segment_index": i, "num_planned": len(accepted["plan"])} for i, s in enumerate(accepted["segments"])
        ],
        "progress": [],
        "progress_procvlm": [],
        "reasoning": [],
        "plan": accepted["plan"],
        "needs_review": False,
        "notes": [accepted["comment"]] if accepted["comment"] else [],
        "quality": dict.fromkeys(("length_z", "order_rarity", "jump", "end_progress", "contradicts")),
    }
    return [human, *kept]
