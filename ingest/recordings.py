"""What an episode is known by: its recording. Its number and its name in the source are addresses, which may change.

A recording is told by layers that survive what people do to datasets: its rows (state and action),
a sketch of single rows, its length, its pictures at a few moments, and the bytes of a video that is
its own. Two layers that agree make it the same one; one layer alone makes it probably the same,
which a person decides.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np

from core.values import grouped, short_hash
from ingest.episode import EpisodeData, EpisodeRecord
from ingest.sources.files import Source

# Of how rows, sketches and moments are computed: those of two versions are not compared
VERSION = 1
MIN_DISTINCT_ROWS = 5  # fewer different rows do not tell one run from another
SKETCH = 32  # hashes of single rows that are kept: the smallest ones
# Of the rows of the shorter run, from where on it is a part of the longer one
MIN_SHARED_ROWS = 0.5
MAX_SHARING = 64  # recordings with one row or picture, above which it tells none apart
MOMENTS = 8  # pictures of a camera, evenly spread
BLOCK_BYTES = 1 << 20
MAX_BITS_APART = 6.0  # mean over the moments, of 64: the same pictures encoded anew differ by less
# Mean to the nearest moment: pictures of other scenes differ by half of all bits
MAX_BITS_OF_A_SCENE = 16.0


class Likeness(StrEnum):
    """How sure it is that two fingerprints are of one recording."""

    SAME = "same"
    PROBABLE = "probable"
    OTHER = "other"
    UNKNOWN = "unknown"  # no layer can be compared


@dataclass(frozen=True)
class Fingerprint:
    """The layers by which a recording is told; a layer that is not known is None or empty.

    rows, times: hashes over all rows. sketch: hashes of single rows. moments: by camera, 64-bit
    perceptual hashes. file: hash over the bytes of a video that holds this run alone. contents:
    content hashes that it has had.
    """

    num_frames: int | None = None
    rows: str | None = None
    times: str | None = None
    sketch: tuple[int, ...] = ()
    moments: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    file: str | None = None
    contents: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        return not (self.rows or self.sketch or self.moments or self.file or self.contents)

    def filled(self, other_fingerprint: "Fingerprint") -> "Fingerprint":
        """This one, with what it lacks from another one of the same recording."""
        return Fingerprint(
            num_frames=self.num_frames
            if self.num_frames is not None
            else other_fingerprint.num_frames,
            rows=self.rows or other_fingerprint.rows,
            times=self.times or other_fingerprint.times,
            sketch=self.sketch or other_fingerprint.sketch,
            moments=self.moments or other_fingerprint.moments,
            file=self.file or other_fingerprint.file,
            contents=self.contents | other_fingerprint.contents,
        )


def rows_fingerprint(episode: EpisodeData) -> Fingerprint:
    """The layers that an episode's rows show; none of its pictures."""
    columns = [
        values
        for values in (episode.state, episode.action)
        if values is not None and values.shape[1]
    ]
    times = episode.timestamps_s
    fingerprint = Fingerprint(
        num_frames=episode.record.num_rows,
        times=None if times is None else _digest(np.asarray(times, np.float64)),
    )
    if not columns:
        return fingerprint
    single_rows = np.unique(_row_hashes(np.column_stack(columns)))
    # A robot that stands still in all of its rows is told by its pictures alone
    if len(single_rows) < MIN_DISTINCT_ROWS:
        return fingerprint
    return replace(fingerprint, rows=_digest(*columns), sketch=tuple(single_rows[:SKETCH].tolist()))


def file_digest(source: Source, record: EpisodeRecord) -> str | None:
    """sha256 over the bytes of the videos of an episode without rows; None of one with rows, or of
    shared files.

    Raises OSError and what `Source.open` does.
    """
    if (
        record.data_uri is not None
        or not record.videos
        or any(video.start_frame for video in record.videos)
    ):
        return None
    digest = hashlib.sha256()
    for video in record.videos:
        with source.open(video.uri) as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def moments_of(phashes: np.ndarray) -> tuple[int, ...]:
    """The perceptual hashes uint64 [n] of a camera at MOMENTS evenly spread frames; none of no frame."""
    frames = (np.arange(MOMENTS) + 0.5) * len(phashes) / MOMENTS
    if len(phashes):
        return tuple(phashes[frames.astype(np.int64)].tolist())
    return ()


def file_stamp(source: Source, record: EpisodeRecord, *, now: bool = False) -> str:
    """Changes when a file of an episode is rewritten, resized, or another one; 16 hex.

    now: as the files are by now, not as the source was listed.
    """
    state = source.state if now else source.files.get
    uris = {record.data_uri, *(video.uri for video in record.videos)}
    lines = [f"{uri} {state(uri)}" for uri in sorted(filter(None, uris)) if uri in source.files]
    return short_hash("\n".join([*lines, record.source_stamp]))


def likeness(fingerprint: Fingerprint, other_fingerprint: Fingerprint) -> tuple[Likeness, str]:
    """How sure it is that both are of one recording, and the layers that say so."""
    if fingerprint.contents & other_fingerprint.contents:
        return Likeness.SAME, "rows and pictures are equal"
    if fingerprint.file and fingerprint.file == other_fingerprint.file:
        return Likeness.SAME, "the bytes of the video are equal"
    rows_compared = fingerprint.rows is not None and other_fingerprint.rows is not None
    rows_equal = rows_compared and fingerprint.rows == other_fingerprint.rows
    pictures = pictures_alike(fingerprint, other_fingerprint)
    if rows_equal and pictures is not False:
        return Likeness.SAME, "the rows are equal"
    if rows_equal:
        return Likeness.PROBABLE, "the rows are equal, the pictures are others"
    lengths_equal = (
        fingerprint.num_frames is not None
        and fingerprint.num_frames == other_fingerprint.num_frames
    )
    if pictures and lengths_equal:
        reason = "the pictures and the length are equal, the rows are others"
        return (
            Likeness.PROBABLE,
            reason if rows_compared else "the pictures look alike and the length is equal",
        )
    if (share := shared_rows(fingerprint.sketch, other_fingerprint.sketch)) >= MIN_SHARED_ROWS:
        return Likeness.PROBABLE, f"{share:.0%} of the rows are equal, the length is another"
    if not lengths_equal and is_of_one_scene(fingerprint, other_fingerprint):
        return (
            Likeness.PROBABLE,
            "there are no rows, the pictures are of one scene, and the length is another",
        )
    is_compared = (
        rows_compared or pictures is not None or bool(fingerprint.file and other_fingerprint.file)
    )
    return (Likeness.OTHER if is_compared else Likeness.UNKNOWN), ""


def pictures_alike(fingerprint: Fingerprint, other_fingerprint: Fingerprint) -> bool | None:
    """Does a camera of one show the same as a camera of the other, at the same shares of time?
    None: not known.

    Cameras of one name are compared; of all with all where no name is in both.
    """
    names = fingerprint.moments.keys() & other_fingerprint.moments.keys()
    pairs = [(fingerprint.moments[name], other_fingerprint.moments[name]) for name in sorted(names)]
    if not names:
        pairs = list(product(fingerprint.moments.values(), other_fingerprint.moments.values()))
    distances = [bits_apart(a, b) for a, b in pairs if len(a) == len(b) > 0]
    if distances:
        return min(distances) <= MAX_BITS_APART
    return None


def is_of_one_scene(fingerprint: Fingerprint, other_fingerprint: Fingerprint) -> bool:
    """May one video be a part of the other? Asked where neither has rows: at which moments it was cut is not known."""
    if fingerprint.sketch or other_fingerprint.sketch:
        return False
    for camera in fingerprint.moments.keys() & other_fingerprint.moments.keys():
        other_hashes = other_fingerprint.moments[camera]
        distances = [_bits_to_nearest(h, other_hashes) for h in fingerprint.moments[camera]]
        if distances and sum(distances) / len(distances) <= MAX_BITS_OF_A_SCENE:
            return True
    return False


def _bits_to_nearest(picture_hash: int, other_hashes: Sequence[int]) -> int:
    return min((picture_hash ^ other_hash).bit_count() for other_hash in other_hashes)


def bits_apart(first_hashes: Sequence[int], second_hashes: Sequence[int]) -> float:
    """Mean number of bits, of 64, by which hashes at the same moments differ."""
    return sum((a ^ b).bit_count() for a, b in zip(first_hashes, second_hashes, strict=True)) / len(
        first_hashes
    )


def shared_rows(first_sketch: Sequence[int], second_sketch: Sequence[int]) -> float:
    """The share of the shorter run's different rows that the other one has, estimated by their
    sketches, 0..1.

    A sketch of fewer than SKETCH hashes has all of them; of a full one only what is below its
    largest is known.
    """
    if not first_sketch or not second_sketch:
        return 0.0
    largest_rows = [
        max(sketch) for sketch in (first_sketch, second_sketch) if len(sketch) == SKETCH
    ]
    limit = min(largest_rows, default=None)
    first = {row for row in first_sketch if limit is None or row <= limit}
    second = {row for row in second_sketch if limit is None or row <= limit}
    shorter = min(len(first), len(second))
    if shorter:
        return len(first & second) / shorter
    return 0.0


def _digest(*columns: np.ndarray) -> str:
    """16 hex over arrays of float64, by their shapes and bytes."""
    digest = hashlib.sha256()
    for values in columns:
        digest.update(f"{values.shape}".encode())
        digest.update(np.ascontiguousarray(values, np.float64).tobytes())
    return digest.hexdigest()[:16]


def _row_hashes(rows: np.ndarray) -> np.ndarray:
    """A 63-bit hash of each row of float64 [n, d]: a polynomial of its bits, mixed as splitmix64 does."""
    bits = np.ascontiguousarray(rows, np.float64).view(np.uint64)
    mixed = np.zeros(len(rows), np.uint64)
    for column in bits.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed ^ (mixed >> np.uint64(32))) >> np.uint64(1)


# Where recordings are: an old listing against a new one


@dataclass(frozen=True)
class KnownRecording:
    """A recording that a dataset has, or had: where it was last, and what it is told by.

    stamp: of its files when they were listed (`file_stamp`), decoded_stamp: when they were decoded;
    source_stamp: by sizes alone, of lakes that have no other.
    """

    recording: str
    dataset: str
    episode_index: int
    source_id: str
    is_here: bool
    stamp: str = ""
    source_stamp: str = ""
    decoded_stamp: str = ""
    group: str = ""
    split: str | None = None
    resembles: str | None = None
    why: str = ""
    fingerprint: Fingerprint = Fingerprint()

    def changed(self, **fields: Any) -> "KnownRecording":
        """The same recording with other values of some fields."""
        return replace(self, **fields)


@dataclass(frozen=True)
class Address:
    """An episode as it is listed now."""

    record: EpisodeRecord
    stamp: str

    @property
    def source_id(self) -> str:
        return self.record.source_id


@dataclass(frozen=True)
class Placement:
    """Which recording an address holds.

    known: the recording; None: it is a new one. resembles: a known recording that the new one may
    be. is_sure: False: the files are others and nothing was there to compare them by, so that the
    pass over the pictures has to tell. fingerprint: what was read of the rows now.
    """

    address: Address
    known: KnownRecording | None
    resembles: KnownRecording | None = None
    why: str = ""
    is_sure: bool = True
    fingerprint: Fingerprint = Fingerprint()

    def with_fingerprint(self, fingerprint: Fingerprint) -> "Placement":
        """The same placement, with what was read of the rows."""
        return replace(self, fingerprint=fingerprint)

    @property
    def is_moved(self) -> bool:
        return (
            self.known is not None
            and self.known.is_here
            and self.known.source_id != self.address.source_id
        )

    @property
    def is_back(self) -> bool:
        return self.known is not None and not self.known.is_here

    @property
    def index(self) -> int:
        return self.address.record.episode_index


def place(
    known_recordings: Sequence[KnownRecording],
    addresses: Sequence[Address],
    read: Callable[[EpisodeRecord], Fingerprint],
) -> list[Placement]:
    """Which known recording each address of a new listing holds, in the order of the addresses.

    read: the rows' layers of an episode, or the bytes of its video; asked only where files changed.
    Linear in the number of recordings.
    """
    placed = _unchanged(known_recordings, addresses)
    unplaced = _Unplaced(known_recordings, {p.known.recording for p in placed.values() if p.known})
    waiting = [address for address in addresses if address.source_id not in placed]
    # Where no recording is missing, as at the first listing, what is not placed is new
    if not unplaced.index.recordings:
        return [placed.get(address.source_id) or Placement(address, None) for address in addresses]
    fingerprints = {address.source_id: read(address.record) for address in waiting}
    # What changed is told by what its rows say; first those that are equal, so that none is taken for a part of another
    for find in (unplaced.equal, unplaced.similar, unplaced.of_this_name):
        for address in waiting:
            fingerprint = fingerprints[address.source_id]
            placement = None if address.source_id in placed else find(address, fingerprint)
            if placement is not None:
                placed[address.source_id] = placement.with_fingerprint(fingerprint)
    new = {a.source_id: Placement(a, None, fingerprint=fingerprints[a.source_id]) for a in waiting}
    return [placed.get(address.source_id) or new[address.source_id] for address in addresses]


def _unchanged(
    known_recordings: Sequence[KnownRecording], addresses: Sequence[Address]
) -> dict[str, Placement]:
    """By name the addresses whose files did not change: they hold what they held."""
    by_name = {
        recording.source_id: recording for recording in known_recordings if not recording.is_here
    }
    by_name |= {
        recording.source_id: recording for recording in known_recordings if recording.is_here
    }
    placed: dict[str, Placement] = {}
    for address in addresses:
        recording_before = by_name.get(address.source_id)
        if recording_before is not None and is_unchanged(recording_before, address):
            placed[address.source_id] = Placement(address, recording_before)
    return placed


def is_unchanged(recording: KnownRecording, address: Address) -> bool:
    """Do the files of an address look as they did when the recording was there?"""
    if recording.stamp:
        return recording.stamp == address.stamp
    return bool(recording.source_stamp) and recording.source_stamp == address.record.source_stamp


class RecordingIndex:
    """Recordings by what they are told by, so that one need not be compared with all of them.

    A row or a picture that very many have, such as that of a common start, tells none apart and is
    not looked up.
    """

    def __init__(self, recordings: Iterable[KnownRecording]) -> None:
        self.recordings = {recording.recording: recording for recording in recordings}
        self._whole: dict[str, list[str]] = defaultdict(list)
        for recording in self.recordings.values():
            for key in whole_keys(recording.fingerprint):
                self._whole[key].append(recording.recording)

    @cached_property
    def _parts(self) -> dict[tuple[str, int, int], list[str]]:
        """Of those that are left when a part is looked up first: mostly few, since those that are equal are gone."""
        parts: dict[tuple[str, int, int], list[str]] = defaultdict(list)
        for recording in self.recordings.values():
            for key in part_keys(recording.fingerprint):
                parts[key].append(recording.recording)
        return parts

    def remove(self, recording: KnownRecording) -> None:
        self.recordings.pop(recording.recording, None)

    def equal(self, fingerprint: Fingerprint) -> list[KnownRecording]:
        """Recordings with equal rows, contents or bytes, in the order in which they were given."""
        names = chain.from_iterable(self._whole.get(key, ()) for key in whole_keys(fingerprint))
        return [self.recordings[name] for name in dict.fromkeys(names) if name in self.recordings]

    def similar(self, fingerprint: Fingerprint) -> list[KnownRecording]:
        """Recordings that have single rows, or pictures at the same moments of as long a run; the most first."""
        shared: Counter[str] = Counter()
        for key in part_keys(fingerprint):
            names = self._parts.get(key, ())
            if len(names) <= MAX_SHARING:
                shared.update(names)
        ordered = sorted(shared, key=lambda name: (-shared[name], name))
        return [self.recordings[name] for name in ordered if name in self.recordings]

    def closest(
        self, fingerprint: Fingerprint, without: Collection[str] = ()
    ) -> tuple[KnownRecording, Likeness, str] | None:
        """The recording that a fingerprint is of, for sure or else probably; None where it is of none.

        without: ids of recordings that it is not, as a person said.
        """
        probable = None
        for candidate in (*self.equal(fingerprint), *self.similar(fingerprint)):
            if candidate.recording in without:
                continue
            degree, reason = likeness(candidate.fingerprint, fingerprint)
            if degree == Likeness.SAME:
                return candidate, degree, reason
            if degree == Likeness.PROBABLE and probable is None:
                probable = candidate, degree, reason
        return probable


def whole_keys(fingerprint: Fingerprint) -> list[str]:
    """What is equal in two fingerprints of one recording: the rows, the bytes, or a content hash."""
    return [*filter(None, (fingerprint.rows, fingerprint.file)), *sorted(fingerprint.contents)]


def part_keys(fingerprint: Fingerprint) -> list[tuple[str, int, int]]:
    """What two fingerprints of probably one recording share some of: single rows; pictures of as long a run."""
    keys = [("row", 0, row) for row in fingerprint.sketch]
    for moments in fingerprint.moments.values():
        keys += [
            (f"picture {k}", fingerprint.num_frames or 0, moment)
            for k, moment in enumerate(moments)
        ]
    return keys


class _Unplaced:
    """Recordings that no address holds yet."""

    def __init__(self, known: Sequence[KnownRecording], placed: set[str]) -> None:
        ordered = sorted(
            known, key=lambda recording: (not recording.is_here, recording.episode_index)
        )
        self.index = RecordingIndex(
            recording for recording in ordered if recording.recording not in placed
        )
        self._by_name: dict[str, KnownRecording] = {}
        for recording in self.index.recordings.values():
            self._by_name.setdefault(recording.source_id, recording)

    def _namesake(self, address: Address) -> KnownRecording | None:
        recording = self._by_name.get(address.source_id)
        if recording is not None and recording.recording in self.index.recordings:
            return recording
        return None

    def equal(self, address: Address, fingerprint: Fingerprint) -> Placement | None:
        """By equal rows, or bytes; of several the one that had this name, else the first."""
        candidates = self.index.equal(fingerprint)
        if not candidates:
            return None
        namesake = self._namesake(address)
        recording = next((c for c in candidates if c is namesake), candidates[0])
        self.index.remove(recording)
        if fingerprint.rows:
            reason = "the rows are equal"
        else:
            reason = "the bytes of the video are equal"
        return Placement(address, recording, why=reason)

    def similar(self, address: Address, fingerprint: Fingerprint) -> Placement | None:
        """By a good part of the rows: the recording that shares most of them."""
        for recording in self.index.similar(fingerprint):
            share = shared_rows(fingerprint.sketch, recording.fingerprint.sketch)
            if share >= MIN_SHARED_ROWS:
                self.index.remove(recording)
                reason = f"{share:.0%} of the rows are equal, the length or other rows differ"
                return Placement(address, None, resembles=recording, why=reason)
        return None

    def of_this_name(self, address: Address, fingerprint: Fingerprint) -> Placement | None:
        """By its name alone: the pictures have to tell."""
        recording = self._namesake(address)
        if recording is None:
            return None
        self.index.remove(recording)
        former_fingerprint = recording.fingerprint
        if (former_fingerprint.rows and fingerprint.rows) or (
            former_fingerprint.file and fingerprint.file
        ):
            compared_part = "the rows" if fingerprint.rows else "the bytes of the video"
            reason = f"it has the name of that recording, {compared_part} are others"
            return Placement(address, None, resembles=recording, why=reason)
        return Placement(address, recording, why="it has the name of that recording", is_sure=False)


def gone(
    known_recordings: Iterable[KnownRecording], placements: Iterable[Placement]
) -> list[KnownRecording]:
    """Recordings that were in the source, and that no address holds any more."""
    present = {placement.known.recording for placement in placements if placement.known}
    return [
        recording
        for recording in known_recordings
        if recording.is_here and recording.recording not in present
    ]


def remembered_splits(
    placements: Sequence[Placement], known_recordings: Iterable[KnownRecording]
) -> dict[str, str]:
    """The split of each listed group, by the recordings that it has now; held-out splits before train.

    A group that is named in the source also keeps what its recordings had that are away.
    """
    splits_away = grouped(
        (recording.group, recording.split)
        for recording in known_recordings
        if recording.split
        and not recording.is_here
        and not _is_own_group(recording.group, recording)
    )
    splits_here = grouped(
        (placement.address.record.group, recording.split)
        for placement in placements
        if (recording := placement.known or placement.resembles) and recording.split
    )
    return {group: _strictest(splits) for group, splits in (splits_away | splits_here).items()}


def _is_own_group(group: str, recording: KnownRecording) -> bool:
    """Is a group named after the address of its only episode? Then its name says nothing of the recording."""
    return group in (recording.source_id, f"episode {recording.episode_index}", "")


def _strictest(splits: Sequence[str]) -> str:
    """Of recordings that were joined to one group: a split that is held out, if there is one."""
    return min(splits, key=lambda split: (split == "train", split))
