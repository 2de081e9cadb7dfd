"""`proccorpus inspect`: what a dataset is and what is wrong with it, before any build and without a workspace."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, chain
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from annotate.config import FramesConfig
from annotate.frames import FramesResult, frames_stage
from annotate.measured_files import MeasuredFiles, delete_oldest
from core.values import grouped, spread
from ingest.episode import (
    VIDEO_SUFFIXES,
    CameraVideo,
    EpisodeRecord,
    Finding,
    Listing,
    VideoError,
    joined_findings,
)
from ingest.episodes import settle
from ingest.media.video import VideoInfo, probe
from ingest.reasons import REASONS, DataError
from ingest.registry import UNNAMED, DatasetConfig, name_of
from ingest.signals.gripper import signal_row
from ingest.signals.survey import survey
from ingest.source import DatasetPlace, check_places, list_episodes, places_of, read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError, address_below, last_name
from pipeline.inspection_report import pictured_runs

SHOWN = frozenset({0})  # episodes of a remote source whose files are fetched
# When not all are: episodes decoded, and frames of them in all, as far as one episode has no more; video headers read
DECODED = 3
DECODED_FRAMES = 250
PROBED = 300
MIN_LACKING = 1.0  # frames that a video lacks at its end
FORM = ("codec", "size_px")
MAX_RATES = 4  # of a camera's videos, that are listed singly
PLACE = itemgetter("episode_index", "start_frame", "check_name", "camera", "signal")
type Findings = Sequence[dict[str, Any]]
NOTHING: Mapping[str, Findings] = MappingProxyType({})


def inspect_source(
    path: Path | str,
    revision: str | None = None,
    *,
    format: str | None = None,
    full: bool = False,
    num_pictured: int = 0,
    accepted: Mapping[str, Findings] = NOTHING,
) -> dict[str, Any]:
    """Facts and findings of a source, those first that make something unusable. Raises SourceError.

    Reads the metadata, the rows in which grippers are looked for (`survey`), the headers of up to PROBED videos, and
    decodes DECODED episodes, or fewer that have DECODED_FRAMES together; `full`: all of them. Of a remote source its
    metadata and the files of episode 0, which are thrown away afterwards. Of a folder that holds several datasets:
    `datasets`, a row for each, by its metadata alone unless `full`. `signals`, `signal_lags` and `parts` are rows of
    the tables signals, signal_lags and source_parts; `checks`: of run_checks, with fps, start_s, end_s and duration_s.
    `pictured`: of a single dataset as many of the runs in which checks found most, with pictures of their stretches.
    accepted: by source what people accepted of it: these findings are `accepted`, with who and why, and not pictured.
    """
    with _opened(str(path), revision, format, full) as source:
        places = places_of(source)
        check_places(source, places)
        # At the commit that was listed, so that all parts are of one
        revision = source.revision or revision
        if len(places.datasets) == 1 and not places.datasets[0].folder:
            return _inspected(str(path), source, full, num_pictured, accepted)
    # A folder round a single dataset is that dataset
    if len(places.datasets) == 1:
        whole = address_below(str(path), places.datasets[0].folder)
        depth = {"full": full, "num_pictured": num_pictured}
        return inspect_source(whole, revision, format=format, accepted=accepted, **depth)
    rows = [_row_of(str(path), place, revision, full, accepted) for place in places.datasets]
    return {
        "path": str(path),
        "revision": revision,
        "looked_at": "metadata; everything: --full" if not full else "everything",
        "datasets": rows,
        "beside": list(places.beside),
        "findings": [*chain.from_iterable(row["findings"] for row in rows)],
        "accepted": [*chain.from_iterable(row.pop("accepted") for row in rows)],
    }


@contextmanager
def _opened(path: str, revision: str | None, format: str | None, full: bool) -> Iterator[Source]:
    """A source of which only what is looked at is fetched, where it is an address, into a folder that goes."""
    is_address = "://" in path
    location = path if is_address else str(Path(path).resolve())
    facts: dict[str, Any] = {
        "name": name_of(last_name(path)) or UNNAMED,
        "source": location,
        "revision": revision,
        "format": format,
    }
    with TemporaryDirectory() as folder:
        yield Source(
            DatasetConfig(**facts), SHOWN if is_address and not full else None, Path(folder)
        )


def _row_of(
    path: str,
    place: DatasetPlace,
    revision: str | None,
    full: bool,
    accepted: Mapping[str, Findings],
) -> dict[str, Any]:
    """One of several datasets: what it is, and how much of it is usable, as far as was looked."""
    address = address_below(path, place.folder)
    row = {
        "folder": place.folder,
        "name": name_of(last_name(address)),
        "format": place.format.name,
        "episodes": 0,
        "usable_so_far": 0,
        "is_bare": place.is_bare,
        "error": None,
        "findings": [],
        "accepted": [],
    }
    try:
        with _opened(address, revision, place.format.name, full) as source:
            if full:
                facts = _inspected(address, source, full, 0, accepted)
            else:
                listing = settle(list_episodes(source), source.config)
                facts = _dataset_facts(listing, listing.findings)
                facts |= _parted(source, listing.findings, accepted)
    # One that cannot be read hides none of the others
    except SourceError as e:
        return row | {"error": str(e)}
    for name in ("findings", "accepted"):
        facts[name] = [{"folder": place.folder} | finding for finding in facts[name]]
    return {name: facts.get(name, value) for name, value in row.items()}


def _inspected(
    path: str,
    source: Source,
    full: bool,
    num_pictured: int,
    accepted: Mapping[str, Findings],
) -> dict[str, Any]:
    """The facts of a source as a row: `inspect_source` says what is read for them."""
    # With no indices given before, since there is no workspace: episodes are counted as a first build would
    listing = settle(list_episodes(source), source.config)
    unusable = _unusable(listing.findings)
    selected = [
        r for r in listing.records if source.selected is None or r.episode_index in source.selected
    ]
    surveyed = survey(source, listing.records, listing.robot)

    # A few episodes are decoded as a build would; of the others the headers of their videos say enough
    usable = [r for r in selected if r.episode_index not in unusable]
    decoded = usable if full else _few(usable)
    measured = frames_stage(
        source,
        decoded,
        0,
        FramesConfig(),
        lambda sha256, jpeg: None,
        signals=surveyed.signals,
        measure=MeasuredFiles(source).measured,
    )
    delete_oldest()
    headers, unreadable, num_read = _headers(
        source, selected, full, unusable | {r.episode_index for r in decoded}
    )

    in_runs = _in_runs(measured)
    checks = sorted(chain.from_iterable(f.stretches for f in in_runs), key=PLACE)
    findings = [*listing.findings, *surveyed.findings, *unreadable, *in_runs]
    parted = _parted(source, sorted(findings, key=lambda f: f.severity != "unusable"), accepted)
    depth = " (all)" if full else "; everything: --full"
    return {
        "path": path,
        "revision": source.revision,
        "looked_at": f"metadata; {num_read} video headers; {len(decoded)} episodes decoded{depth}",
        **_dataset_facts(listing, findings),
        "decoded_episodes": len(decoded),
        "decoded_frames": measured.decoded_frames,
        "codecs": ", ".join(sorted({f"{d['codec']} {d['size_px']}" for d in headers})),
        "camera_details": _camera_details(source, listing, headers, decoded),
        "signals": [signal_row(signal) for signal in surveyed.signals],
        "signal_lags": measured.tables["signal_lags"]
        .drop_columns(["dataset", "chunk"])
        .to_pylist(),
        "checks": checks,
        "pictured": pictured_runs(source, decoded, checks, parted["accepted"], num_pictured),
        **parted,
    }


def _in_runs(measured: FramesResult) -> list[Finding]:
    """What the frames stage found; stretches are rows of run_checks, with seconds."""
    runs = {row["episode_index"]: row for row in measured.tables["episode_content"].to_pylist()}
    return [
        replace(f, stretches=[_row_of_stretch(f, s, runs[f.episode_index]) for s in f.stretches])
        for f in joined_findings(measured.findings)
    ]


def _row_of_stretch(
    finding: Finding, stretch: dict[str, Any], content: dict[str, Any]
) -> dict[str, Any]:
    fps = content["fps"]
    return {
        "episode_index": finding.episode_index,
        "check_name": finding.reason,
        "camera": finding.camera or "",
        **stretch,
        "start_s": stretch["start_frame"] / fps,
        "end_s": stretch["end_frame"] / fps,
        "fps": fps,
        "duration_s": content["num_frames"] / fps,
    }


def _few(records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The first episode, and others of DECODED while all have DECODED_FRAMES together; rows nobody counted are none."""
    chosen = spread(records, DECODED)
    ends = list(accumulate(r.num_rows or 0 for r in chosen))
    return [r for k, r in enumerate(chosen) if not k or ends[k] <= DECODED_FRAMES]


def _unusable(findings: Sequence[Finding]) -> set[int | None]:
    """The episodes that findings make unusable; None among them: the source as a whole."""
    return {f.episode_index for f in findings if f.severity == "unusable"}


def _parted(
    source: Source, findings: Sequence[Finding], accepted: Mapping[str, Findings]
) -> Mapping[str, Findings]:
    """Findings that nobody accepted, and those that somebody did, with who and why; each with its remedy."""
    parts: dict[str, list[dict[str, Any]]] = {"findings": [], "accepted": []}
    for finding in findings:
        row = finding.data_fields | {"remedy": REASONS[finding.reason].remedy}
        words = [
            word
            for word in accepted.get(source.config.source, ())
            if word["check_name"] == finding.reason
            and word["episode_index"] in (None, finding.episode_index)
        ]
        if words and finding.severity == "warning":
            row |= {"accepted_by": words[0]["author"], "accepted_why": words[0]["why"]}
            parts["accepted"].append(row)
        else:
            parts["findings"].append(row)
    return parts


def _dataset_facts(listing: Listing, findings: Sequence[Finding]) -> dict[str, Any]:
    """What a source is and holds, how much of it is usable, and how runs ended."""
    unusable = _unusable(findings)
    # A finding about no episode makes the source as a whole unusable
    usable_so_far = 0 if None in unusable else len(listing.records) - len(unusable)
    usable = listing.records if usable_so_far else ()
    outcomes = _outcomes([r for r in usable if r.episode_index not in unusable])
    rows = [r.num_rows for r in listing.records if r.num_rows is not None]
    forms = [r.steps_from for r in listing.records if r.steps_from]
    return {
        "format": listing.format,
        "robot": listing.robot,
        "fps": listing.fps,
        "episodes": len(listing.records),
        "usable_so_far": usable_so_far,
        "rows": sum(rows),
        "shortest": min(rows, default=None),
        "longest": max(rows, default=None),
        "success_known": sum(row["succeeded"] + row["failed"] for row in outcomes),
        "outcomes": outcomes,
        "never_set": list(listing.never_set),
        "steps_known": len(forms),
        "steps_from": ", ".join(sorted(set(forms))) or None,
        "cameras": list(listing.cameras),
        "tasks": sorted(set().union(*(r.tasks for r in listing.records))),
        "parts": [vars(part) | {"shape": list(part.shape)} for part in listing.parts],
        "has_rows": any(r.data_uri is not None for r in listing.records),
    }


def _outcomes(records: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Known outcomes by what says so."""
    counts = Counter(
        (r.success_source, r.success) for r in records if r.success is not None and r.success_source
    )
    sources = sorted({source for source, _ in counts if source})
    return [
        {"source": s, "succeeded": counts[s, True], "failed": counts[s, False]} for s in sources
    ]


def _headers(
    source: Source, records: Sequence[EpisodeRecord], full: bool, skipped_episodes: set[int | None]
) -> tuple[list[dict[str, Any]], list[Finding], int]:
    """Camera, codec, size and rate as the headers of up to PROBED videos, or of all, say; findings about episodes that
    are not `skipped_episodes` anyway; how many headers were read.
    """
    users = _video_users(records)
    details = []
    findings = []
    chosen = list(users) if full else spread(list(users), PROBED)
    for uri in chosen:
        # What is unusable anyway, or was decoded, has its finding already
        listed = [user for user in users[uri] if user[0].episode_index not in skipped_episodes]
        try:
            info = probe(source.resolve(uri), source.config.limits)
        except VideoError as e:
            findings += [_of_video(e.reason, str(e), *user) for user in listed]
            continue
        lacks = ((user, _lacking(info, *user)) for user in listed)
        findings += [_of_video("length_differs", text, *user) for user, text in lacks if text]
        size = f"{info.width_px}x{info.height_px}"
        camera = users[uri][0][1].camera  # a file is of one
        details.append({"camera": camera, "codec": info.codec, "size_px": size, "fps": info.fps})
    return details, findings, len(chosen)


def _video_users(
    records: Sequence[EpisodeRecord],
) -> dict[str, list[tuple[EpisodeRecord, CameraVideo]]]:
    """Episodes and their cameras' videos by the files of these."""
    pairs = ((video, record) for record in records for video in record.videos)
    return grouped(
        (video.uri, (record, video))
        for video, record in pairs
        if video.uri.lower().endswith(VIDEO_SUFFIXES)
    )


def _lacking(info: VideoInfo, record: EpisodeRecord, video: CameraVideo) -> str:
    """That a video ends before the rows of an episode do, as its container says; empty where it does not."""
    end_frame = video.start_frame + (record.num_rows or 0) * info.fps / record.fps
    if info.num_frames is None or end_frame - info.num_frames < MIN_LACKING:
        return ""
    return f"its container has {info.num_frames} frames; the {record.num_rows} rows end at frame {end_frame:.0f}"


def _of_video(reason: str, detail: str, record: EpisodeRecord, video: CameraVideo) -> Finding:
    """An episode is lost with its only video; of several it can do without one."""
    severity = "unusable" if len(record.videos) == 1 else "warning"
    return Finding(reason, detail, severity, record.episode_index, video.camera, video.uri)


def _camera_details(
    source: Source,
    listing: Listing,
    headers: list[dict[str, Any]],
    decoded: Sequence[EpisodeRecord],
) -> list[dict[str, Any]]:
    """One row per camera: in how many episodes, codecs, sizes and rates as far as they were read.

    A camera may have several of these over a dataset, so each cell lists the different ones.
    """
    episodes = Counter(camera for r in listing.records for camera in r.cameras)
    by_camera = grouped((header["camera"], header) for header in headers)
    rows = []
    for camera in listing.cameras:
        # Without a video header the first picture tells the size
        of_camera = by_camera.get(camera) or _first_picture(source, camera, decoded)
        row = {"camera": camera, "episodes": episodes[camera]}
        row |= {name: ", ".join(sorted({h[name] for h in of_camera})) for name in FORM}
        rows.append(row | {"fps": _rates({h["fps"] for h in of_camera} - {None})})
    return rows


def _rates(rates: set[float]) -> str:
    texts = [f"{rate:g}" for rate in sorted({float(f"{rate:.4g}") for rate in rates})]
    # Those of many videos of one's own clock each
    return ", ".join(texts) if len(texts) <= MAX_RATES else f"{texts[0]} to {texts[-1]}"


def _first_picture(
    source: Source, camera: str, records: Sequence[EpisodeRecord]
) -> list[dict[str, Any]]:
    """The size of a camera's pictures where they are in no video file."""
    for record in filter(lambda record: camera in record.cameras, records):
        try:
            _, _, picture = next(read_episode(source, record).frames(camera))
        except (DataError, StopIteration):
            continue  # which frames_stage has found, too
        height, width = picture.luma().shape
        return [{"codec": "pictures", "size_px": f"{width}x{height}", "fps": record.fps}]
    return []


def in_short(row: dict[str, Any]) -> str:
    """What is wrong with one of several datasets, in a line: findings by reason, the worst and commonest first."""
    if row["error"]:
        return row["error"]
    counts = Counter((f["severity"] != "unusable", f["reason"]) for f in row["findings"])
    commonest = sorted(counts, key=lambda kind: (kind[0], -counts[kind], kind))
    parts = [f"{counts[kind]} {kind[1]}" for kind in commonest]
    if row["is_bare"]:
        parts.append("nothing describes its videos: a build of all leaves it out")
    return ", ".join(parts)
