"""Adapter for RoboTwin as its simulator writes it: `<task>/<config>/data/episode<k>.hdf5` with the joints of two arms
and encoded pictures, and `<task>/<config>/instructions/episode<k>.json` with lists of texts.

A file is read as any of HDF5, by the convention of its writer.
"""

import re
from collections.abc import Iterable

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats import hdf5
from ingest.formats.listing import folders_of
from ingest.formats.writers import ROBOTWIN
from ingest.sources.files import Source

DATA_FILE = re.compile(r"((?:.*/)?)data/(episode[0-9]+)\.hdf5")
# What else the simulator writes
BESIDE = re.compile(r"((?:.*/)?)(?:instructions/[^/]+|scene_info\.json|seed\.txt)")


def recognises(source: Source) -> bool:
    """Files data/episode<k>.hdf5 beside what only RoboTwin writes, or when the registry says so."""
    if source.config.format == "robotwin":
        return bool(folders_of(DATA_FILE, source.files))
    return bool(roots(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks' configurations."""
    uris = list(uris)
    sibling_folders = folders_of(BESIDE, uris)
    return {folder: "" for folder in folders_of(DATA_FILE, uris) if folder in sibling_folders}


def list_episodes(source: Source) -> Listing:
    return hdf5.list_files(source, "robotwin", filter(DATA_FILE.fullmatch, source.files), ROBOTWIN)


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    return hdf5.read_episode(source, record, ROBOTWIN)
