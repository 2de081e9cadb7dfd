"""Which formats are asked whether a dataset is theirs: by names of files alone, before their libraries are imported."""

import subprocess
import sys

import pytest

from core.paths import ROOT
from ingest.formats import FORMATS, format_named, formats_to_ask
from ingest.formats.adapter import adapter_of

# Names of files that a format's adapter takes for a dataset of its own
FILES = [
    ("rlds", ["toy/1.0.0/toy-train.tfrecord-00000-of-00001"]),
    ("rlds", ["toy/1.0.0/dataset_info.json", "toy/1.0.0/features.json"]),
    ("agibot", ["task_info/task_327.json"]),
    ("agibot", ["observations/327/648642/videos/head_color.mp4"]),
    ("agibot", ["proprio_stats/327/648642/proprio_stats.h5"]),
    ("agibot", ["all/observations/327/648642-685032.tar"]),
    ("robotwin", ["task/aloha/data/episode0.hdf5", "task/aloha/scene_info.json"]),
    ("mcap", ["bag/bag_0.mcap"]),
    ("mcap", ["BAG.MCAP"]),
    ("zarr", ["replay.zarr.zip"]),
    ("zarr", ["replay/meta/episode_ends/0"]),
    ("zarr", ["replay.zarr/meta/episode_ends/c/0"]),
    ("hdf5", ["run/Episode0.HDF5"]),
    ("hdf5", ["a.h5"]),
    ("hdf5", ["a.hdf"]),
]


@pytest.mark.parametrize(("name", "uris"), FILES)
def test_a_format_is_asked_about_what_its_adapter_takes(name: str, uris: list[str]) -> None:
    format_ = format_named(name)
    assert adapter_of(format_).roots(uris)
    assert format_ in formats_to_ask(uris)


def test_every_format_with_signs_is_in_the_list() -> None:
    assert {format_.name for format_ in FORMATS if format_.signs} == {name for name, _ in FILES}


def test_formats_without_signs_are_always_asked() -> None:
    assert formats_to_ask(["notes.txt"]) == [format_ for format_ in FORMATS if not format_.signs]


def test_a_lerobot_dataset_is_found_without_the_libraries_of_others() -> None:
    code = (
        "import sys; from ingest.places import places_of; from ingest.registry import DatasetConfig; "
        "from ingest.sources.files import Source; "
        "source = Source(DatasetConfig(name='toy', source='samples/sim_short')); "
        "print([place.format.name for place in places_of(source).datasets]); "
        "print(sorted({'h5py', 'mcap', 'zstandard', 'google_crc32c'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["['lerobot']", "[]"], done.stderr
