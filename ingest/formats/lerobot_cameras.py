"""The cameras of a LeRobot dataset by preference, and what of its pictures is no camera's.

LeRobot 0.6 says of a video that it is depth. Earlier versions, and other recorders, store depth,
masks and tactile pictures as colour videos. Those are told by their names and their pictures, and
are left out beside a colour camera.
"""

import re
from contextlib import suppress
from typing import Any

from ingest.formats.folders import is_video, object_of
from ingest.formats.lerobot_meta import LerobotListing, feature_details
from ingest.formats.lerobot_rows import camera_columns, picture_file, read_pictures
from ingest.formats.listing import in_order
from ingest.formats.tables import opened, read_columns
from ingest.media.camera_kinds import kind_by_name, look_of
from ingest.media.frames import DecodeOptions
from ingest.media.video import decode
from ingest.reasons import DataError

NUMBER = re.compile(r"\d+")
ONE_THREAD = DecodeOptions(threads=1)


def cameras_of(dataset: LerobotListing) -> list[str]:
    """Camera keys by preference: as the registry orders them, then those that see the scene, then
    by name.

    What is no colour camera comes last, or is left out where a colour camera has files; each is
    accounted for.
    """
    registry = dataset.source.config.cameras
    cameras = [key for key in _pictured(dataset) if not _is_flagged(dataset, key)]
    files = _first_files(dataset)
    excluded = _left_out(dataset, [key for key in cameras if key in files], files)
    cameras = in_order([key for key in cameras if key not in excluded], registry)
    _account_for(dataset, [key for key in cameras if key in files], files)
    return cameras


def _left_out(dataset: LerobotListing, cameras: list[str], files: dict[str, str]) -> list[str]:
    """Those of some cameras with files that show no colours; none where there is no camera of colours."""
    registered = dataset.source.config.cameras.ordered()
    kinds = {key: "" if key in registered else kind_by_name(key) for key in cameras}
    if all(kinds.values()):
        return []
    return [
        key for key, kind in kinds.items() if kind and _is_left_out(dataset, key, kind, files[key])
    ]


def _pictured(dataset: LerobotListing) -> list[str]:
    return [key for key, feature in dataset.info["features"].items() if is_camera(feature)]


def _account_for(dataset: LerobotListing, cameras: list[str], files: dict[str, str]) -> None:
    """The cameras that have files, the main one first."""
    for place, key in enumerate(cameras):
        feature = dataset.info["features"][key]
        main = "" if place else ": the main camera"
        reason = f"info.json says {object_of(feature).get('dtype')}{main}"
        dataset.parts.used(
            "camera", key, "camera", reason, shape=shape_of(feature), file=files[key]
        )


def _is_flagged(dataset: LerobotListing, key: str) -> bool:
    """Does info.json say that it is depth? Then it is accounted for."""
    feature = dataset.info["features"][key]
    details = feature_details(feature)
    if not (details.get("is_depth_map") or details.get("video.is_depth_map")):
        return False
    dataset.parts.known("camera", key, "info.json says that it is depth", shape=shape_of(feature))
    dataset.parts.known("file", f"videos/*{key}/*", f"pictures of {key}, which is depth")
    return True


def _is_left_out(dataset: LerobotListing, key: str, kind: str, file: str) -> bool:
    """Is it no colour camera, by its name and its pictures? A finding says what becomes of it."""
    appearance = "" if dataset.source.config.is_remote else _look(dataset, key, file)
    shape = shape_of(dataset.info["features"][key])
    if appearance or kind == "touch":
        appearance_note = f" and its pictures are {appearance}" if appearance else ""
        reason = f"its name says {kind}{appearance_note}: left out, since there is a colour camera"
        dataset.parts.unknown("camera", key, reason, shape=shape, file=file)
        dataset.parts.known("file", f"videos/*{key}/*", f"pictures of {key}, which is left out")
        return True
    if dataset.source.config.is_remote:
        picture_note = "nothing was looked at"
    else:
        picture_note = "its pictures have colours"
    detail = (
        f"camera {key}: its name says {kind}, but {picture_note}: it comes after the other cameras"
    )
    dataset.warn("part_not_used", detail, camera=key, file=file)
    return False


def _look(dataset: LerobotListing, key: str, uri: str) -> str:
    """How the first picture of a file looks; "" also where it cannot be decoded, which is found when all are."""
    source = dataset.source
    try:
        if is_video(uri):
            pictures = decode(source.resolve(uri), 0, 1, ONE_THREAD)
            return next((look_of(picture.rgb()) for picture in pictures), "")
        return look_of(next(read_pictures(source, uri, 0, 1, key)).rgb())
    except DataError:
        return ""


def _first_files(dataset: LerobotListing) -> dict[str, str]:
    """The first file with pictures of each camera: a video in a folder of its name, or rows."""
    files: dict[str, str] = {}
    rows = None
    for uri in dataset.source.files:
        if is_video(uri):
            for part in uri.split("/")[:-1]:
                files.setdefault(part, uri)
        elif rows is None and uri.startswith("data/") and uri.endswith(".parquet"):
            rows = uri
    # Of a remote source rows would have to be fetched
    if rows is not None and not dataset.source.config.is_remote:
        with suppress(DataError):  # what is wrong with it is found with the rows
            with opened(dataset.source.resolve(rows)) as file:
                columns = camera_columns(dataset.info, file.schema_arrow)
            files |= dict.fromkeys(columns, rows)
            _account_for_named_files(dataset, rows, sorted(columns))
    return files


def _account_for_named_files(dataset: LerobotListing, uri: str, columns: list[str]) -> None:
    """The files of pictures that rows name, all of those whose names are alike but for their numbers."""
    source = dataset.source
    for name in columns:
        table = read_columns(source.resolve(uri), 0, 1, (name,), source.config.limits)
        cell = table[name].to_pylist()[0] if table.num_rows else None
        path = cell.get("path") if isinstance(cell, dict) and not cell.get("bytes") else cell
        if isinstance(path, str) and (file := picture_file(source, uri, path)):
            pattern = NUMBER.sub("*", file)
            dataset.parts.used("file", pattern, "camera", f"rows name them in {name}", file=file)


def is_camera(feature: Any) -> bool:
    """Does info.json declare a feature as pictures?"""
    return object_of(feature).get("dtype") in ("video", "image")


def shape_of(feature: Any) -> tuple[int, ...]:
    """As info.json has it; () where it has none."""
    shape = object_of(feature).get("shape")
    if isinstance(shape, list) and all(type(n) is int for n in shape):
        return tuple(shape)
    return ()
