"""Everything the lake knows of one episode. Each query names dataset and chunk, so it opens one file of each table."""

from dataclasses import dataclass
from typing import Any

from explorer.access import LakeReader, PageError
from explorer.corrected_labels import labels_with_corrections


@dataclass(frozen=True)
class LakeEpisode:
    """One episode of the lake; `facts` is its row of the view `episodes`, with what its dataset says."""

    dataset: str
    episode_index: int
    chunk: int
    facts: dict[str, Any]

    @property
    def num_frames(self) -> int:
        return self.facts["num_frames"] or 0

    @property
    def key(self) -> tuple[str, int, int]:
        return self.dataset, self.chunk, self.episode_index

    @property
    def partition(self) -> str:
        """The name of the chunk's partition in Dagster."""
        return f"{self.dataset}:{self.chunk:05d}"


FACTS_SQL = """
    SELECT f.dataset, f.episode_index, f.chunk, f.source_id, f.task, f.tasks, f.success, f.videos,
           coalesce(c.num_frames, f.num_rows) AS num_frames, coalesce(c.fps, f.fps, d.fps) AS fps,
           f.fps AS stated_fps, coalesce(c.usable_cameras, f.cameras) AS cameras, f.cameras AS all_cameras,
           c.content_hash, f.data_uri, f.source_stamp, d.title, d.robot, d.license, d.format, d.role, d.source_uri,
           s.split, s."group"
    FROM episode_facts f JOIN datasets d ON d.dataset = f.dataset
    LEFT JOIN (FROM episode_content WHERE dataset = $1 AND chunk = $2 AND episode_index = $3) c
      ON c.episode_index = f.episode_index
    LEFT JOIN (FROM splits WHERE dataset = $1 AND chunk = $2 AND episode_index = $3) s
      ON s.episode_index = f.episode_index
    WHERE f.dataset = $1 AND f.chunk = $2 AND f.episode_index = $3"""
OF_EPISODE = "WHERE dataset = $1 AND chunk = $2 AND episode_index = $3"


def chunk_of(reader: LakeReader, dataset: str, episode_index: int) -> int:
    """The chunk of an episode, if it exists. Raises PageError when the lake has no such dataset."""
    known = reader.row("SELECT chunk_size FROM datasets WHERE dataset = ?", dataset)
    if known is None:
        raise PageError(f"there is no dataset {dataset!r} in this corpus")
    return min(episode_index // known[0], 2**31 - 1)


def find_episode(reader: LakeReader, dataset: str, episode_index: int) -> LakeEpisode:
    """Raises PageError when the lake has no such episode."""
    chunk = chunk_of(reader, dataset, episode_index)
    found = reader.dicts(FACTS_SQL, dataset, chunk, episode_index)
    if not found:
        raise PageError(f"{dataset} has no episode {episode_index}")
    facts = found[0]
    facts["findings"] = findings(reader, dataset, chunk, episode_index)
    facts["status"] = "quarantined" if any(f["severity"] == "unusable" for f in facts["findings"]) else "ok"
    facts["duration_s"] = facts["num_frames"] / facts["fps"] if facts["num_frames"] and facts["fps"] else None
    return LakeEpisode(dataset, episode_index, chunk, facts)


def findings(reader: LakeReader, dataset: str, chunk: int, episode_index: int) -> list[dict]:
    """What is wrong with the episode, or with its whole dataset; the unusable first."""
    sql = f"SELECT camera, stage, reason, detail, file, severity FROM findings {OF_EPISODE} ORDER BY severity, reason"
    whole = "SELECT camera, stage, reason, detail, file, severity FROM findings WHERE dataset = ? AND chunk IS NULL"
    own = reader.dicts(sql, dataset, chunk, episode_index)
    return own + reader.dicts(f"{whole} AND severity = 'unusable' ORDER BY reason", dataset)


def label_runs(reader: LakeReader, episode: LakeEpisode) -> list[dict]:
    """Every label of the episode, the active one first: who made it, segments, progress curves, words at frames."""
    key = episode.key
    active = reader.row(f"SELECT label_run, why FROM active_runs {OF_EPISODE}", *key) or (None, None)
    segments = reader.dicts(
        "SELECT label_run, segment_index, name, start_frame, end_frame, completed, kind, step, num_planned,"
        " confidence,"
        f" notes FROM segments {OF_EPISODE} ORDER BY label_run, segment_index",
        *key,
    )
    curves = reader.dicts(
        f"SELECT label_run, list(progress ORDER BY frame_index) AS progress,"
        f" list(progress_procvlm ORDER BY frame_index) AS progress_procvlm FROM progress {OF_EPISODE} GROUP BY 1",
        *key,
    )
    words = reader.dicts(
        f"SELECT label_run, frame_index, text, finished FROM reasoning {OF_EPISODE} ORDER BY 1, 2", *key
    )
    labels = _by_run(reader.dicts(f"FROM episode_labels {OF_EPISODE}", *key))
    quality = _by_run(reader.dicts(f"FROM label_quality {OF_EPISODE}", *key))
    progress = _by_run(curves)
    names = sorted({r["label_run"] for r in (*segments, *curves)}, key=lambda name: (name != active[0], name))
    about = _by_run(reader.dicts("FROM label_runs WHERE list_contains(?, label_run)", names))
    return [
        {
            "label_run": name,
            "active": name == active[0],
            "why": active[1] if name == active[0] else None,
            "about": about.get(name, {}),
            "annotator": about.get(name, {}).get("annotator") or "unknown",
            "model": about.get(name, {}).get("model"),
            "segments": [_without_run(s) for s in segments if s["label_run"] == name],
            "progress": progress.get(name, {}).get("progress", []),
            "progress_procvlm": progress.get(name, {}).get("progress_procvlm", []),
            "reasoning": [_without_run(w) for w in words if w["label_run"] == name],
            "plan": labels.get(name, {}).get("plan") or [],
            "needs_review": bool(labels.get(name, {}).get("needs_review")),
            "confidence": labels.get(name, {}).get("confidence"),
            "notes": labels.get(name, {}).get("notes") or [],
            "quality": {
                k: quality.get(name, {}).get(k)
                for k in ("length_z", "order_rarity", "jump", "end_progress", "contradicts")
            },
        }
        for name in names
    ]


def _by_run(rows: list[dict]) -> dict[str, dict]:
    return {r["label_run"]: r for r in rows}


def _without_run(row: dict) -> dict:
    return {k: v for k, v in row.items() if k != "label_run"}


def keyframes(reader: LakeReader, key: tuple[str, int, int]) -> dict[str, list[dict]]:
    """Stored pictures by camera, in order of time; of several at one frame (boundaries of several runs) one."""
    rows = reader.dicts(
        f"SELECT camera, frame_index, any_value(sha256) AS sha256 FROM keyframes {OF_EPISODE} GROUP BY 1, 2 ORDER"
        " BY 1, 2",
        *key,
    )
    found: dict[str, list[dict]] = {}
    for r in rows:
        url = f"/media/{key[0]}/{key[2]}/keyframes/{r['sha256']}.jpg"
        found.setdefault(r["camera"], []).append({"frame_index": r["frame_index"], "url": url})
    return found


def measures(reader: LakeReader, episode: LakeEpisode) -> dict[str, Any]:
    """What was measured per frame: visual change by camera, gripper opening, speed, and the state's dimensions."""
    rows = reader.dicts(
        f"SELECT camera, list(visual_change ORDER BY frame_index) AS visual_change, list(gripper ORDER BY frame_index)"
        f" AS gripper, list(speed ORDER BY frame_index) AS speed FROM frames {OF_EPISODE} GROUP BY 1 ORDER BY 1",
        *episode.key,
    )
    states = reader.row(f"SELECT list(state ORDER BY frame_index) FROM states {OF_EPISODE}", *episode.key)
    per_frame = (states and states[0]) or []
    first = rows[0] if rows else {"gripper": [], "speed": []}
    return {
        "visual_change": {r["camera"]: r["visual_change"] for r in rows},
        "gripper": first["gripper"] if any(v is not None for v in first["gripper"]) else [],
        "speed": first["speed"] if any(v is not None for v in first["speed"]) else [],
        "state": [list(dimension) for dimension in zip(*per_frame, strict=True)] if per_frame else [],
    }


def predictions(reader: LakeReader, episode: LakeEpisode) -> list[dict]:
    """What models answered at frames of the episode, by evaluation; and what they were scored against."""
    rows = reader.dicts(
        "SELECT p.eval_run, r.model, r.benchmark, r.release, list(p.frame_index ORDER BY p.frame_index) AS frames,"
        " list(p.prediction ORDER BY p.frame_index) AS prediction, list(p.target ORDER BY p.frame_index) AS target"
        " FROM eval_predictions p JOIN eval_runs r ON r.eval_run = p.eval_run"
        " WHERE p.dataset = ? AND p.episode_index = ? AND p.question IS NULL GROUP BY ALL ORDER BY r.model, p.eval_run",
        episode.dataset,
        episode.episode_index,
    )
    return rows


def episode_data(reader: LakeReader, episode: LakeEpisode) -> dict[str, Any]:
    """All of it as one JSON value: what the page's scripts and other programs read."""
    kept = ("task", "tasks", "num_frames", "fps", "duration_s", "success", "status", "split", "content_hash")
    return {
        "dataset": episode.dataset,
        "episode_index": episode.episode_index,
        "chunk": episode.chunk,
        "snapshot": reader.snapshot.number,
        **{k: episode.facts[k] for k in kept},
        "cameras": cameras(episode, keyframes(reader, episode.key)),
        "runs": labels_with_corrections(reader, episode.dataset, episode.episode_index, label_runs(reader, episode)),
        "predictions": predictions(reader, episode),
        "measures": measures(reader, episode),
    }


def cameras(episode: LakeEpisode, stored: dict[str, list[dict]]) -> list[dict]:
    """Each camera with its video, if it has one, the frame in it at which the episode begins, and stored pictures."""
    videos = {v["camera"]: v for v in episode.facts["videos"] or []}
    usable = episode.facts["cameras"] or []
    names = [*usable, *sorted({*(episode.facts["all_cameras"] or []), *videos, *stored} - {*usable})]
    damage = {f["camera"]: f["detail"] for f in episode.facts["findings"] if f["camera"]}
    return [
        {
            "camera": name,
            "usable": name in usable,
            "problem": damage.get(name),
            "video": None
            if name not in videos
            else {
                "url": f"/media/{episode.dataset}/{episode.episode_index}/video/{k}",
                "start_frame": videos[name]["start_frame"] or 0,
                "fps": episode.facts["stated_fps"] or episode.facts["fps"],
            },
            "keyframes": stored.get(name, []),
        }
        for k, name in enumerate(names)
    ]
