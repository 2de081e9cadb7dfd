"""Everything the lake knows of one episode. Each query names dataset and chunk, so it
opens one file of each table.
"""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import Path

from annotate.signal_report import lag
from core.annotators import follows_sql, made_by
from core.domain.label import Episode, Label
from core.files import queries_of
from core.values import grouped
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import NO_LABEL, QUALITY_SIGNS, labels_with_corrections
from ingest.episode import EpisodeData, record_from_row
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.source import read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError
from warehouse.lake.corrections import SAID_LATER, as_said
from warehouse.lake.stored import (
    chunk_lags,
    episode_from_row,
    labels_of_chunk,
    openings_of,
    signals_by_dataset,
)

(
    FACTS_SQL,
    RECORDINGS_SQL,
    PREDICTIONS_SQL,
    FINDINGS_SQL,
    KEYFRAMES_SQL,
    ACCEPTED_SQL,
    WHOLE_SQL,
    FOLLOWERS_SQL,
) = queries_of(__file__)
OF_CHUNK = "WHERE dataset = $1 AND chunk = $2"
ACTIVE_SQL = f"FROM active_runs {OF_CHUNK}"
EpisodeIndex = Annotated[int, Path(ge=0, le=2**53)]  # in an address
OF_DATASET = ("title", "robot", "license", "format", "role", "source_uri")
# The largest number that the column's type holds; one above it, in an address, names no episode
MAX_CHUNK = 2**31 - 1
OF_EPISODE = "WHERE dataset = $1 AND chunk = $2 AND episode_index = $3"


def chunk_of(reader: LakeReader, dataset: str, episode_index: int) -> int:
    """The chunk of an episode, if it exists. Raises PageError when the lake has no such dataset."""
    return min(episode_index // find_dataset(reader, dataset)["chunk_size"], MAX_CHUNK)


def find_dataset(reader: LakeReader, dataset: str) -> dict[str, Any]:
    """The row of a dataset. Raises PageError when the lake has no such dataset."""
    rows = reader.kept(
        "datasets", lambda: {row["dataset"]: row for row in reader.dicts("FROM datasets")}
    )
    if dataset not in rows:
        raise PageError(f"there is no dataset {dataset!r} in this corpus")
    return rows[dataset]


# What the table episode_labels adds to a label, where it has it
OF_NOTES = ("steps_from", "plan", "needs_review", "notes")
MEASURED = ("visual_change", "gripper", "speed", "grippers")  # columns of the table frames
LISTS = ", ".join(f"list({name} ORDER BY frame_index) AS {name}" for name in MEASURED)
# Of tables with rows for each frame, a row for each episode of those that {where} names
FRAMES_SQL = (
    f"SELECT episode_index, camera, {LISTS} FROM frames {{where}} GROUP BY ALL ORDER BY 1, 2"
)
STATES_SQL = "SELECT episode_index, list(state ORDER BY frame_index) AS states FROM states {where} GROUP BY 1"
CURVES_SQL = """
    SELECT episode_index, label_run, list(progress ORDER BY frame_index) AS progress,
           list(progress_procvlm ORDER BY frame_index) AS progress_procvlm FROM progress {where} GROUP BY ALL"""
FEW_FRAMES = 10_000  # of a chunk: they take less than 3 MB


def find_episode(reader: LakeReader, dataset: str, episode_index: int) -> Episode:
    """An episode, whether it can be used or not. Raises PageError when the lake has no such episode."""
    return episode_and_facts(reader, dataset, episode_index)[0]


def episode_and_facts(
    reader: LakeReader, dataset: str, episode_index: int
) -> tuple[Episode, dict[str, Any]]:
    """An episode, and what pages show of it (episode_facts). Raises PageError when the
    lake has no such episode.
    """
    facts = episode_facts(reader, dataset, episode_index)
    return episode_from_row(facts), facts


def address_of(episode: Episode) -> str:
    """The end of the addresses of an episode's pages."""
    return f"/{quote(episode.dataset, safe='')}/{episode.episode_index}"


def partition_of(episode: Episode) -> str:
    """The name that the partition of an episode's chunk has in Dagster."""
    return f"{episode.dataset}:{episode.chunk:05d}"


def episode_facts(reader: LakeReader, dataset: str, episode_index: int) -> dict[str, Any]:
    """What pages show of an episode: its row of the view `episodes`, what its dataset
    says, and what is wrong with it.

    Raises PageError when the lake has no such episode.
    """
    of_dataset = find_dataset(reader, dataset)
    chunk = chunk_of(reader, dataset, episode_index)
    rows = reader.episode_rows("facts", FACTS_SQL, dataset, chunk, episode_index)
    if not rows:
        raise PageError(f"{dataset} has no episode {episode_index}")
    facts = rows[0] | {name: of_dataset[name] for name in OF_DATASET}
    facts["fps"] = of_dataset["fps"] if facts["fps"] is None else facts["fps"]
    facts["findings"] = findings(reader, dataset, chunk, episode_index)
    facts["recording"] = recording_at(reader, dataset, episode_index)
    if any(f["severity"] == "unusable" for f in facts["findings"]):
        facts["status"] = "quarantined"
    else:
        facts["status"] = "ok"
    facts["duration_s"] = None
    if facts["num_frames"] and facts["fps"]:
        facts["duration_s"] = facts["num_frames"] / facts["fps"]
    return facts


def findings(reader: LakeReader, dataset: str, chunk: int, episode_index: int) -> list[dict]:
    """What is wrong with the episode, or with its whole dataset; the unusable first.
    `accepted`: who accepted it, why, and whether in the whole dataset; None where nobody
    did.
    """
    episode_findings = reader.episode_rows("findings", FINDINGS_SQL, dataset, chunk, episode_index)
    accepted: dict[str, dict] = {}
    if any(finding["severity"] == "warning" for finding in episode_findings):
        rows = reader.dicts(ACCEPTED_SQL, [dataset, episode_index])
        accepted = {row["check_name"]: row for row in rows}
    for finding in episode_findings:
        is_warning = finding["severity"] == "warning"
        finding["accepted"] = accepted.get(finding["reason"]) if is_warning else None
    by_dataset = reader.kept("findings of datasets", lambda: _findings_of_datasets(reader))
    return episode_findings + by_dataset.get(dataset, [])


def faults(reader: LakeReader, episode: Episode) -> list[dict]:
    """The stretches in which checks found a fault, in order of time: rows of the view checks."""
    if not reader.has_rows("run_checks"):
        return []
    return reader.dicts(
        f"SELECT * FROM checks {OF_EPISODE} ORDER BY start_frame, check_name, camera",
        [*episode.row_key],
    )


def _findings_of_datasets(reader: LakeReader) -> dict[str, list[dict]]:
    """Why whole datasets cannot be used."""
    rows = reader.dicts(WHOLE_SQL)
    return grouped((row["dataset"], row) for row in rows)


def _followers(reader: LakeReader, episode: Episode) -> set[str]:
    """Label runs whose label of the episode was made like one that a model made of another run."""
    sql = FOLLOWERS_SQL.format(follows=follows_sql("annotator", label="l"))
    return {row["label_run"] for row in reader.dicts(sql, [*episode.row_key])}


def label_runs(reader: LakeReader, episode: Episode) -> list[dict]:
    """Every label of the episode, the active one first: who made it, segments, progress
    curves, words at frames.
    """
    # One query per table for all labels of the episode, then everything is put together by label run
    key = episode.row_key
    labels = _labels(reader, episode)
    curves = {row["label_run"]: row for row in _frame_rows(reader, episode, CURVES_SQL)}
    sql = f"SELECT label_run, frame_index, text, finished FROM reasoning {OF_EPISODE} ORDER BY 1, 2"
    rows = reader.dicts(sql, [*key]) if reader.has_rows("reasoning") else []
    words = grouped((row.pop("label_run"), row) for row in rows)
    notes = _by_label_run(reader, "episode_labels", key)
    quality = _by_label_run(reader, "label_quality", key)
    makers = reader.kept(
        "label_runs", lambda: {r["label_run"]: r for r in reader.dicts("FROM label_runs")}
    )

    followers = _followers(reader, episode) if reader.has_rows("alignments") else set()

    # The label that counts is shown first; the lake says which it is and why
    active = active_run(reader, episode) or {"label_run": None, "why": None}
    listed_runs = []
    for run in sorted({*labels, *curves}, key=lambda name: (name != active["label_run"], name)):
        maker = makers.get(run, {})
        curve = curves.get(run, {})
        note = notes.get(run, {})
        segments = []
        if run in labels:
            planned = {"num_planned": labels[run].num_planned}
            parts = enumerate(labels[run].segments)
            segments = [{"segment_index": k} | vars(part) | planned for k, part in parts]
        is_active = run == active["label_run"]
        annotator = maker.get("annotator") or "unknown"
        listed_runs.append(
            NO_LABEL
            | {name: note[name] for name in OF_NOTES if note.get(name)}
            | {
                "label_run": run,
                "active": is_active,
                "why": active["why"] if is_active else None,
                "about": maker,
                "annotator": annotator,
                "made_by": made_by(annotator, note.get("steps_from"), follows=run in followers),
                "model": maker.get("model"),
                "segments": segments,
                "progress": curve.get("progress", []),
                "progress_procvlm": curve.get("progress_procvlm", []),
                "reasoning": words.get(run, []),
                **{
                    name: note.get(name)
                    for name in ("final_progress", "catastrophic_frame", "confidence")
                },
                "named": note.get("named") is not False,
                "quality": {sign: quality.get(run, {}).get(sign) for sign in QUALITY_SIGNS},
            }
        )
    return listed_runs


def active_run(reader: LakeReader, episode: Episode) -> dict[str, Any] | None:
    """The `label_run` of an episode that counts, and `why`; None: it has no label that does."""
    rows = reader.episode_rows("active_runs", ACTIVE_SQL, *episode.row_key)
    return next(iter(rows), None)


def recording_at(reader: LakeReader, dataset: str, episode_index: int) -> str | None:
    """The recording that an episode holds, or held last; None: it never held one. Raises
    PageError: no such dataset.
    """
    chunk = chunk_of(reader, dataset, episode_index)
    rows = reader.episode_rows("recordings", RECORDINGS_SQL, dataset, chunk, episode_index)
    return next((row["recording"] for row in rows), None)


def label_as_said(reader: LakeReader, episode: Episode, label_run: str) -> dict[str, Any] | None:
    """A label of an episode as people could have said it (corrections.Corrected); None:
    it has none of that run.
    """
    label = _labels(reader, episode).get(label_run)
    facts = _by_label_run(reader, "episode_labels", episode.row_key).get(label_run)
    if label is None or facts is None:
        return None
    segments = [as_said(segment) for segment in label.segments]
    return {"segments": segments} | {name: facts[name] for name in ("plan", *SAID_LATER)}


def _labels(reader: LakeReader, episode: Episode) -> dict[str, Label]:
    """The labels of an episode by label run."""
    of_chunk = episode.row_key[:2]
    labels = reader.kept(("labels", *of_chunk), lambda: labels_of_chunk(reader.con, *of_chunk))
    return labels.get(episode.episode_index, {})


def _frame_rows(reader: LakeReader, episode: Episode, sql: str) -> list[dict[str, Any]]:
    """The rows of an episode of a query of this module. Where the chunk has few frames
    all of it is asked for once: to find the files takes most of the time.
    """
    of_chunk = episode.row_key[:2]
    lengths = reader.chunk_rows("facts", FACTS_SQL, *of_chunk)["num_frames"].to_pylist()
    if sum(length or 0 for length in lengths) <= FEW_FRAMES:
        return reader.episode_rows(sql, sql.format(where=OF_CHUNK), *episode.row_key)
    return reader.dicts(sql.format(where=OF_EPISODE), [*episode.row_key])


def stored_pictures(reader: LakeReader, key: tuple[str, int, int]) -> list[dict]:
    """`camera`, `frame_index`, `sha256` and `url` of an episode's stored pictures, by
    camera and time.

    Of several at one frame (boundaries of several runs) one.
    """
    dataset, _, episode_index = key
    pictures = reader.episode_rows("keyframes", KEYFRAMES_SQL, *key)
    for picture in pictures:
        picture["url"] = f"/media/{dataset}/{episode_index}/keyframes/{picture['sha256']}.jpg"
    return pictures


def keyframes(pictures: list[dict]) -> dict[str, list[dict]]:
    """Stored pictures by camera, as pages have them: `frame_index` and `url`."""
    return grouped(
        (p["camera"], {"frame_index": p["frame_index"], "url": p["url"]}) for p in pictures
    )


def _by_label_run(
    reader: LakeReader, table: str, row_key: tuple[str, int, int]
) -> dict[str, dict[str, Any]]:
    rows = reader.episode_rows(table, f"FROM {table} {OF_CHUNK}", *row_key)
    return {row["label_run"]: row for row in rows}


def _curve(values: list[float | None]) -> list[float | None]:
    """The values of a curve; empty where it has none at all."""
    return [] if values.count(None) == len(values) else values


def measures(reader: LakeReader, episode: Episode) -> dict[str, Any]:
    """What was measured per frame: visual change by camera, how open grippers are, speed,
    and the state's dimensions.

    `gripper` is the one that closes most often; `grippers` has the curve of each, as
    recorded. `has_polarity`: is 1 open, or does it only tell that the gripper moves?
    `lag`: how far labels take it to be behind the pictures.
    """
    rows = _frame_rows(reader, episode, FRAMES_SQL)
    # Every camera's rows have the same of these; one without any value is none
    first = next(iter(rows), {"gripper": [], "speed": [], "grippers": []})
    # States are stored per frame; curves need them per dimension
    states = _frame_rows(reader, episode, STATES_SQL)
    signals = reader.kept("signals", lambda: signals_by_dataset(reader.con)).get(
        episode.dataset, []
    )
    lags = []
    if signals:
        of_chunk = episode.row_key[:2]
        lags = reader.kept(("lags", *of_chunk), lambda: chunk_lags(reader.con, *of_chunk))
    return {
        "visual_change": {row["camera"]: row["visual_change"] for row in rows},
        "gripper": _curve(first["gripper"]),
        "grippers": [
            {
                "name": gripper_measure.signal.title if gripper_measure.signal else "gripper",
                "has_polarity": gripper_measure.signal is None
                or gripper_measure.signal.has_polarity,
                "lag": lag(gripper_measure.signal, lags) if gripper_measure.signal else "",
                "opening": gripper_measure.opening,
            }
            for gripper_measure in openings_of(
                signals, list(zip(first["gripper"], first["grippers"], strict=True))
            )
        ],
        "speed": _curve(first["speed"]),
        "state": [
            list(dimension)
            for dimension in zip(*(states[0]["states"] if states else ()), strict=True)
        ],
    }


def predictions(reader: LakeReader, episode: Episode) -> list[dict]:
    """The answers of models at frames of the episode, by evaluation, and the values they
    were scored against.
    """
    if not reader.has_rows("eval_predictions"):
        return []
    return reader.dicts(PREDICTIONS_SQL, [episode.dataset, episode.episode_index])


def episode_data(reader: LakeReader, episode: Episode) -> dict[str, Any]:
    """All of it as one JSON value: what the page's scripts and other programs read."""
    facts = episode_facts(reader, episode.dataset, episode.episode_index)
    names = (
        "task",
        "tasks",
        "num_frames",
        "fps",
        "duration_s",
        "success",
        "success_source",
        "status",
        "split",
    )
    return {
        "dataset": episode.dataset,
        "episode_index": episode.episode_index,
        "chunk": episode.chunk,
        "snapshot": reader.snapshot(),
        **{name: facts[name] for name in (*names, "content_hash")},
        "cameras": cameras(facts, keyframes(stored_pictures(reader, episode.row_key))),
        "runs": labels_with_corrections(
            reader, episode.dataset, episode.episode_index, label_runs(reader, episode)
        ),
        "faults": faults(reader, episode),
        "predictions": predictions(reader, episode),
        "measures": measures(reader, episode),
    }


def cameras(facts: dict[str, Any], stored: dict[str, list[dict]]) -> list[dict]:
    """Each camera with its video, if it has one, the frame in it at which the episode
    begins, and stored pictures.

    facts: as `episode_facts` has them.
    """
    address = address_of(episode_from_row(facts))
    videos = {video["camera"]: video for video in facts["videos"] or []}
    usable = facts["cameras"] or []
    # Cameras that could not be used are listed, too, with what is wrong with them
    unusable = {*(facts["all_cameras"] or []), *videos, *stored} - {*usable}
    damage = {
        finding["camera"]: finding["detail"] for finding in facts["findings"] if finding["camera"]
    }
    return [
        {
            "camera": name,
            "usable": name in usable,
            "problem": damage.get(name),
            "video": {
                "url": f"/media{address}/video/{number}",
                "start_frame": videos[name]["start_frame"] or 0,
                "fps": facts["stated_fps"] or facts["fps"],
            }
            if name in videos
            else None,
            "keyframes": stored.get(name, []),
        }
        for number, name in enumerate([*usable, *sorted(unusable)])
    ]


@lru_cache(maxsize=8)
def _source(config: str) -> Source:
    """Of a dataset's configuration, as the lake has it; kept, since it lists the dataset's files once."""
    return Source(DatasetConfig(**json.loads(config)["dataset"]), None, None)


def recorded_data(reader: LakeReader, episode: Episode) -> EpisodeData:
    """An episode as its source has it; `action` is float64 [frames, dimensions], or None
    where there are none.

    Raises PageError: the source is not on this machine, or cannot be read.
    """
    subject = f"the actions of {episode.dataset} {episode.episode_index}"
    listing = listing_of(reader, episode)
    if listing is None:
        raise PageError(
            f"{subject} cannot be read: the lake does not know the source of the dataset"
        )
    # A page must not wait for a download
    if (source := _source(listing.config)).config.is_remote:
        raise PageError(f"{subject} are at {source.config.source}: a page does not download them")
    try:
        read = read_episode(source, record_from_row(listing.row))
    except (DataError, SourceError, OSError) as e:
        raise PageError(f"{subject} cannot be read: {e}") from e
    if read.action is not None and len(read.action) > 0:
        return read
    return replace(read, actions=None)


def build_config(reader: LakeReader, dataset: str) -> str | None:
    """The configuration, as JSON, that a dataset was last built with; None: the lake does not know it."""
    configs = reader.kept(
        "build configs", lambda: dict(reader.rows("SELECT dataset, config FROM build_configs"))
    )
    return configs.get(dataset)


class Listed(NamedTuple):
    """What an episode is read by: its dataset's configuration, as the last build had it,
    and its row of the listing.
    """

    config: str
    row: dict[str, Any]


def listing_of(reader: LakeReader, episode: Episode) -> Listed | None:
    """None: the lake does not know the source of the dataset."""
    # The source is opened as the last build opened it, so that frames are counted alike
    config = build_config(reader, episode.dataset)
    if config is None:
        return None
    (row,) = reader.episode_rows("listed", f"FROM episode_facts {OF_CHUNK}", *episode.row_key)
    return Listed(config, row)


def row_pictures(listing: Listed, camera: str) -> list[int] | None:
    """Which picture of its camera's video each row of an episode has; None where the
    format has them one by one, the source is not on this machine, or it cannot be read
    any more.
    """
    source = _source(listing.config)
    if source.config.is_remote:
        return None
    try:
        places = read_episode(source, record_from_row(listing.row)).match(camera).places
    except (DataError, SourceError, OSError):
        return None
    if places is None:
        return None
    return places.tolist()
