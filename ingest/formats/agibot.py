"""Adapter for AgiBot World as its makers publish it (Alpha and Beta): loose files, or the hub's tar archives.

`task_info/task_<task>.json` lists episodes with their timed steps;
`observations/<task>/<episode>/videos/*.mp4` are the cameras (depth and tactile pictures lie beside
that folder and are not read); `proprio_stats/<task>/<episode>/ proprio_stats.h5` has the rows. On
the hub the latter two are in `observations/<task>/<first>-<last>.tar` and `proprio_stats/*.tar`,
whose members stand as if the archive were unpacked where it lies. Frames are 30 a second.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import product
from typing import Any

from ingest.episode import EpisodeData, EpisodeRecord, Listing, SourcePart
from ingest.formats.folders import (
    EpisodeFiles,
    Key,
    episodes_of,
    frames_of,
    object_of,
    stated_steps,
)
from ingest.formats.hdf5_file import length_of, rows_in
from ingest.formats.hdf5_parts import opened_place
from ingest.formats.listing import (
    ListingBuilder,
    folders_of,
    in_order,
    texts_among,
)
from ingest.formats.tree import Uses, account
from ingest.formats.tree_reader import read_tree, why_known
from ingest.formats.writers import AGIBOT, Writer
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from ingest.sources.files import split as inside_tar

TASK_FILE = re.compile(r"^task_info/task_(\d+)\.json$")
VIDEO_FILE = re.compile(r"^observations/(?:.*/)?(\d+)/(\d+)/videos/([^/]+)\.mp4$")
ROWS_FILE = re.compile(r"^proprio_stats/(?:.*/)?(\d+)/(\d+)/proprio_stats\.h5$")
TAR_FILE = re.compile(r"^(observations/\d+|proprio_stats)/[^/]+\.tar$")
FILES = (TASK_FILE, VIDEO_FILE, ROWS_FILE, TAR_FILE)
ROOT = re.compile(
    rf"((?:[^/]+/)*?)(?:{'|'.join(pattern.pattern.strip('^$') for pattern in FILES)})"
)
FPS = 30.0
ROBOT = "a2d"
ENTRY_USES: Uses = {
    "episode_id": ("group", "the number of the episode"),
    "task_name": ("instruction", "its name"),
    "label_info": ("steps", "spans with texts"),
    "lable_info": ("steps", "spans with texts"),
}
FIRST_CAMERAS = ("head_color",)
WRIST = ("hand_",)
TIME = "timestamp"
STATE = AGIBOT.state[0]


def recognises(source: Source) -> bool:
    return any(pattern.match(uri) for uri, pattern in product(source.files, FILES))


def roots(uris: Iterable[str]) -> dict[str, str]:
    return folders_of(ROOT, uris)


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    fps = source.config.fps or FPS
    # An episode may be listed without files, and files may be there of episodes that are not listed
    entries = _entries(listing)
    files = defaultdict(EpisodeFiles, {key: EpisodeFiles() for key in entries})
    for place, uri in _places(listing).items():
        video = VIDEO_FILE.match(place)
        if video and "depth" in video[3]:
            listing.parts.add(
                SourcePart(
                    "camera",
                    video[3],
                    "known",
                    "",
                    "depth by its name: labels are made by colour pictures",
                    file=uri,
                )
            )
        elif video:
            files[video[1], video[2]].videos.setdefault(video[3], uri)
        elif rows := ROWS_FILE.match(place):
            files[rows[1], rows[2]].tables.setdefault("rows", uri)

    video_folder = "observations/{task}/{episode}/videos"
    for key, source_id, episode_files, videos in episodes_of(
        listing, files, video_folder, FIRST_CAMERAS, WRIST
    ):
        if key not in entries:
            detail = f"has files, but task_info/task_{key[0]}.json does not list it"
            listing.warn_next("not_in_metadata", detail)
        # Files alone are an episode as well, without text and steps
        entry = entries.get(key, {})
        num_rows = _num_rows(listing, source_id, episode_files.tables.get("rows"))
        tasks = texts_among([entry.get("task_name")])
        if not tasks:
            listing.warn_next("no_task", "no task_name")
        # Published entries state no outcome; those of other makers do, beside the steps or above them
        facts = object_of(entry.get("label_info")) | entry
        # lable_info is how the dataset's card spells it
        label = object_of(entry.get("label_info", entry.get("lable_info")))
        listing.account_for_facts("task_info: ", entry, ENTRY_USES, AGIBOT)
        listing.add(
            source_id,
            fps,
            tasks=tasks,
            num_rows=num_rows,
            data_uri=episode_files.tables.get("rows"),
            videos=videos,
            facts=facts,
            **stated_steps(listing, label.get("action_config"), "action_config", num_rows),
        )
    return listing.listing(
        "agibot",
        in_order(listing.cameras_in_use(), source.config.cameras, FIRST_CAMERAS, WRIST),
        fps=fps,
        robot=ROBOT,
        nothing="no task_info file lists an episode, and there are no data",
    )


def _entries(listing: ListingBuilder) -> dict[Key, dict[str, Any]]:
    """What the task files say of each episode; of two entries of one episode the first counts."""
    entries: dict[Key, dict[str, Any]] = {}
    task_files = {uri: match[1] for uri in listing.source.files if (match := TASK_FILE.match(uri))}
    if not task_files:
        listing.warn("no_metadata", "there is no task_info/task_<id>.json")
    for uri, task in task_files.items():
        content = listing.read_json(uri, default=[])
        for number, entry in enumerate(content if isinstance(content, list) else [content]):
            episode = object_of(entry).get("episode_id")
            if type(episode) is not int or episode < 0:
                listing.warn(
                    "unreadable_data", f"entry {number} of {uri} has no episode_id", file=uri
                )
            elif entries.setdefault((task, str(episode)), entry) is not entry:
                listing.warn("duplicate_episode", f"{uri} lists episode {episode} twice", file=uri)
    return entries


def _places(listing: ListingBuilder) -> dict[str, str]:
    """Uris of files by where they lie when all is unpacked; a loose file counts before one in an archive."""
    places = {uri: uri for uri in listing.source.files}
    for tar in filter(TAR_FILE.match, listing.source.files):
        archive = listing.source.archive(tar)
        if archive.problem:
            listing.warn(
                archive.problem.reason, f"{tar} is not read to its end: {archive.problem}", file=tar
            )
        for name in archive.members:
            if name.endswith((".mp4", ".h5")):
                places.setdefault(f"{tar.rpartition('/')[0]}/{name}", f"{tar}!/{name}")
    return places


def _num_rows(listing: ListingBuilder, source_id: str, uri: str | None) -> int | None:
    """The coming episode's rows, with what each table is used for; None of a remote file, which would have to be
    fetched, unless its tar was.
    """
    source = listing.source
    if uri is None:
        looked_for = f"proprio_stats/{source_id}/proprio_stats.h5"
        listing.unusable_next("no_data", f"there is no {looked_for}", looked_for)
    # A tar was fetched already, for the names of its members
    elif not source.config.is_remote or inside_tar(uri):
        try:
            with opened_place(source, uri, _writer(source.config)) as place:
                roles = place.roles()
                uses = {**roles.uses, TIME: ("time", "AgiBot's time of each row")}
                account(
                    listing.parts,
                    place.parts(),
                    uses,
                    partial(why_known, writer=AGIBOT),
                    "AgiBot publishes no table of this name",
                )
                # By the first of time and state that has any
                paths = (TIME, *roles.state.paths, *roles.action.paths)
                tables = rows_in(place.group, paths).items()
                num_rows = length_of({path: t for path, t in tables if t.size}, place.limits)
            if num_rows is not None:
                return num_rows
            places = ", ".join((TIME, *(source.config.keys.state or STATE)))
            listing.unusable_next("no_data", f"no rows in {places}", uri)
        except DataError as e:
            listing.unusable_next(e.reason, str(e), uri)
    return None


def _writer(config: DatasetConfig) -> Writer:
    """Actions are absent, or of another length, in many episodes, and only a registry entry can ask for them."""
    if any(gripper.column == "action" for gripper in config.grippers):
        return AGIBOT
    return AGIBOT._replace(action=())


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Joints, with finger joints of dexterous hands, and grippers of one episode; raises DataError.

    Grippers are in mm as published. The dataset's card calls that the opening; users of it report that it grows as a
    gripper closes (OpenDriveLab/AgiBot-World issue 133): the data has to show it.
    """
    if record.data_uri is None:
        raise DataError("no proprio_stats.h5", "no_data")
    opened = partial(opened_place, source, record.data_uri, _writer(source.config))
    return read_tree(record, opened, files=frames_of(source, record))
