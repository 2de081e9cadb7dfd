"""The formats that are read: each is registered here, and nowhere else.

A format's adapter is a module of this package with the functions of `ingest.source.FormatAdapter`.
Adapters import video and array libraries, so `ingest.source` imports one when a dataset needs it:
this module imports nothing of ours.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Format(NamedTuple):
    """A format, as the registry and the command line name it, and what is known of all its datasets.

    `needs_rows`: an episode without rows cannot be read.
    `frames_as_in_file`: a camera that is a video file shows frame k of an episode as frame `start_frame` + k of that
    file, so that exports may copy it.
    `levels`: how many folders up from what its adapter's `roots` finds its dataset may begin, as that of several tasks
    does; None: at any, since nothing but single files shows where it is.
    `signs`: parts of names of files, one of which every dataset of the format has: without any its adapter, and the
    libraries that this needs, are not imported to ask; empty: it is always asked.
    """

    name: str
    adapter: str  # the module that reads it
    needs_rows: bool = False
    frames_as_in_file: bool = False
    levels: int | None = 0
    signs: tuple[str, ...] = ()  # in small letters

    def may_have(self, file_names: str) -> bool:
        """May a dataset with such files, in small letters, be of the format?"""
        return not self.signs or any(sign in file_names for sign in self.signs)


LEROBOT = Format("lerobot", "ingest.formats.lerobot", needs_rows=True, frames_as_in_file=True)
VIDEO = Format("video", "ingest.formats.plain_video", frames_as_in_file=True, levels=None)

# In the order in which they are asked whether a dataset is theirs: the particular before the general
FORMATS: tuple[Format, ...] = (
    Format("rlds", "ingest.formats.rlds", levels=1, signs=(".tfrecord", "dataset_info.json")),
    Format(
        "agibot",
        "ingest.formats.agibot",
        frames_as_in_file=True,
        signs=("task_info/", "observations/", "proprio_stats/"),
    ),
    Format("rh20t", "ingest.formats.rh20t", levels=1, signs=("_user_",)),
    Format(
        "droid",
        "ingest.formats.droid",
        frames_as_in_file=True,
        levels=None,
        signs=("trajectory.h5",),
    ),
    Format(
        "table30",
        "ingest.formats.table30",
        frames_as_in_file=True,
        levels=1,
        signs=("meta/task_info.json", "data/episode_"),
    ),
    Format("robotwin", "ingest.formats.robotwin", needs_rows=True, levels=2, signs=(".hdf5",)),
    LEROBOT,
    Format(
        "xr_teleoperate",
        "ingest.formats.xr_teleoperate",
        needs_rows=True,
        levels=1,
        signs=("data.json",),
    ),
    Format(
        "mcap",
        "ingest.formats.mcap_bag",
        needs_rows=True,
        levels=None,
        signs=(".mcap", ".db3", ".bag"),
    ),
    Format(
        "zarr",
        "ingest.formats.replay_zarr",
        needs_rows=True,
        signs=(".zarr.zip", "meta/episode_ends"),
    ),
    Format(
        "hdf5", "ingest.formats.hdf5", needs_rows=True, levels=None, signs=(".hdf5", ".h5", ".hdf")
    ),
    Format(
        "robo_dopamine",
        "ingest.formats.robo_dopamine",
        frames_as_in_file=True,
        levels=1,
        signs=("annotated_keyframes.json",),
    ),
    VIDEO,
)
FORMAT_NAMES = tuple(f.name for f in FORMATS)


def formats_to_ask(uris: Iterable[str], formats: Sequence[Format] = FORMATS) -> list[Format]:
    """Those of some formats that a dataset with such files may be of, by their signs alone."""
    names = "\n".join(uris).lower()
    return [format_ for format_ in formats if format_.may_have(names)]


def format_named(name: str) -> Format:
    """The format that a registry entry names."""
    return next(f for f in FORMATS if f.name == name)
