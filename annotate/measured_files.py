"""What a pass over pictures measured, in files of the temporary folder: `inspect` leaves it there, a build takes it.

A file holds one camera of one episode, and its keyframes. Its name is a hash over all that the measurements depend on,
the state of the episode's files among it.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from annotate.checkup.single_runs import CameraSignals
from annotate.config import FRAMES_VERSION, FramesConfig
from annotate.frames import (
    Measured,
    Store,
    Wanting,
    measure_camera,
)
from core.files import open_whole
from ingest.episode import DecodeOptions, EpisodeData, EpisodeRecord
from ingest.recordings import file_stamp
from ingest.sources.files import Source, trim

MAX_BYTES = 1 << 30  # of all files; the oldest go
FACTS = ("luma_span", "damaged", "tiny_every", "keyframes", "moments")


@dataclass(frozen=True)
class MeasuredFiles:
    """The files of a user, for a dataset's source."""

    source: Source

    def measured(
        self,
        episode: EpisodeData,
        camera: str,
        config: FramesConfig,
        store: Store,
        wanting: Wanting,
        options: DecodeOptions,
    ) -> Measured:
        """As `measure_camera`, whose result is kept where the folder can be written to. Raises VideoError."""
        jpegs: dict[str, bytes] = {}

        def store_and_keep(digest: str, jpeg: bytes) -> None:
            jpegs[digest] = jpeg
            store(digest, jpeg)

        measured = measure_camera(episode, camera, config, store_and_keep, wanting, options)
        with suppress(OSError):
            own_folder(makes=True)
            if path := self._path(episode.record, camera, config):
                with open_whole(path, synced=False) as file:
                    np.savez(file, allow_pickle=False, **_arrays(measured, jpegs))
        return measured

    def taken(
        self,
        episode: EpisodeData,
        camera: str,
        config: FramesConfig,
        store: Store,
        wanting: Wanting,
        options: DecodeOptions,
    ) -> Measured:
        """What was kept of these files, so that nobody is handed pictures; else as `measure_camera`."""
        stored = self._read(episode.record, camera, config)
        if stored is None:
            return measure_camera(episode, camera, config, store, wanting, options)
        measured, jpegs = stored
        for row, jpeg in zip(measured.keyframes, jpegs, strict=True):
            store(row["sha256"], jpeg)
        return measured

    def _read(
        self, record: EpisodeRecord, camera: str, config: FramesConfig
    ) -> tuple[Measured, list[bytes]] | None:
        try:
            path = self._path(record, camera, config) if self._are_any else None
            if path is None or not path.exists():
                return None
            with np.load(path, allow_pickle=False) as file:
                return _from_arrays(dict(file), camera)
        # Half a file, or one of another version: it is measured again
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
            return None

    @cached_property
    def _are_any(self) -> bool:
        """Were there any files when this was first asked?"""
        folder = own_folder()
        return folder is not None and any(folder.iterdir())

    def _path(self, record: EpisodeRecord, camera: str, config: FramesConfig) -> Path | None:
        facts = (
            FRAMES_VERSION,
            self.source.config.source,
            self.source.revision,
            file_stamp(self.source, record, now=True),
            self.source.config.model_dump_json(include={"fps", "gripper", "keys", "limits"}),
            sorted(self.source.config.cameras.bgr),
            config.model_dump_json(),
            (record.source_id, record.fps, record.num_rows, record.data_uri, record.data_key),
            (record.row_start, record.videos),
            camera,
        )
        folder = own_folder()
        return folder and folder / f"{sha256(repr(facts).encode()).hexdigest()}.npz"


def _arrays(measured: Measured, jpegs: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    facts = vars(measured.measures) | vars(measured)
    pictures = [jpegs[row["sha256"]] for row in measured.keyframes]
    return {name: value for name, value in facts.items() if isinstance(value, np.ndarray)} | {
        "facts": np.array(json.dumps({name: facts[name] for name in FACTS})),
        "digest": np.frombuffer(measured.measures.sha256, np.uint8),
        "jpegs": np.frombuffer(b"".join(pictures), np.uint8),
        "ends": np.cumsum([len(jpeg) for jpeg in pictures], dtype=np.int64),
    }


def _from_arrays(arrays: dict[str, np.ndarray], camera: str) -> tuple[Measured, list[bytes]]:
    """Inverse of `_arrays`."""
    facts = json.loads(str(arrays.pop("facts")))
    digest, jpegs = (arrays.pop(name).tobytes() for name in ("digest", "jpegs"))
    ends = arrays.pop("ends").tolist()
    measures = CameraSignals(**arrays, luma_span=facts["luma_span"], sha256=digest, camera=camera)
    measured = Measured(
        measures,
        tuple(facts["moments"]),
        facts["keyframes"],
        facts["damaged"],
        facts["tiny_every"],
        was_decoded=False,
    )
    return measured, [jpegs[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def own_folder(*, makes: bool = False) -> Path | None:
    """The folder of this user, which nobody else can write to. Raises OSError, also where there is none."""
    folder = Path(tempfile.gettempdir(), f"proccorpus-measured-{os.getuid()}")
    if makes:
        folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    is_own = state.st_uid == os.getuid() and not state.st_mode & 0o077 and not folder.is_symlink()
    return folder if is_own else None


def delete_oldest() -> None:
    """Delete what was kept first, where all is more than MAX_BYTES."""
    with suppress(OSError):
        if folder := own_folder():
            trim(folder, folder, MAX_BYTES)
