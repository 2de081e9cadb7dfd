"""Adapter for RoboTwin as its simulator writes it: `<task>/<config>/data/episode<k>.hdf5` with the joints of two arms
and encoded pictures, and `<task>/<config>/instructions/episode<k>.json` with lists of texts.

These are HDF5 files of one writer (`writers.ROBOTWIN`), which is known by what lies beside them.
"""

import re
from collections.abc import Iterable

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats import hdf5
from ingest.formats import hdf5_file as h5
from ingest.formats.listing import folders_of
from ingest.formats.side_files import ROBOTWIN_DATA
from ingest.formats.writers import ROBOTWIN
from ingest.sources.files import Source

# What else the simulator writes
BESIDE = re.compile(r"((?:.*/)?)(?:instructions/[^/]+|scene_info\.json|seed\.txt)")


def recognises(source: Source) -> bool:
    """Files data/episode<k>.hdf5 beside what only RoboTwin writes, or when the registry says so."""
    if source.config.format == "robotwin":
        return bool(folders_of(ROBOTWIN_DATA, source.files))
    return bool(roots(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks' configurations."""
    uris = list(uris)
    sibling_folders = folders_of(BESIDE, uris)
    return {folder: "" for folder in folders_of(ROBOTWIN_DATA, uris) if folder in sibling_folders}


def list_episodes(source: Source) -> Listing:
    uris = sorted(filter(ROBOTWIN_DATA.fullmatch, source.files), key=h5.natural)
    return hdf5.listed(source, uris, "robotwin", ROBOTWIN)


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows and frames of one episode; raises DataError when the rows cannot be read."""
    return hdf5.read_episode(source, record, ROBOTWIN)
