"""What an episode is known by: its recording, whose number never changes. Its number and name in the source do.

A recording is told by layers that survive what people do to datasets: its rows (state and action),
a sketch of single rows, its length, its pictures at a few moments, and the bytes of a video that is
its own. Two layers that agree make it the same one; one layer alone makes it probably the same,
which a person decides.
"""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import chain, product
from types import MappingProxyType

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
# What pictures that are alike say, where lengths are equal, and where rows were compared and are others
BY_PICTURES = {
    (True, True): "the pictures and the length are equal, the rows are others",
    (True, False): "the pictures look alike and the length is equal",
    (False, False): "the pictures look alike at equal shares of the time, the length is another",
}
NO_NUMBER = -1  # of a recording that the next listing gives one
OWN_GROUP = re.compile(r"episode \d+")


class Likeness(StrEnum):
    """How sure it is that two fingerprints are of one recording."""

    SAME = "same"
    PROBABLE = "probable"
    UNKNOWN = "unknown"  # no layer can be compared
    OTHER = "other"


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


def likeness(
    fingerprint: Fingerprint, other_fingerprint: Fingerprint, *, is_namesake: bool = False
) -> tuple[Likeness, str]:
    """How sure it is that both are of one recording, and the layers that say so; is_namesake: one is at the other's
    address."""
    if fingerprint.contents & other_fingerprint.contents:
        return Likeness.SAME, "rows and pictures are equal"
    if fingerprint.file and fingerprint.file == other_fingerprint.file:
        return Likeness.SAME, "the bytes of the video are equal"
    pictures = pictures_alike(fingerprint, other_fingerprint)
    rows_compared = bool(fingerprint.rows and other_fingerprint.rows)
    if rows_compared and fingerprint.rows == other_fingerprint.rows and pictures is not False:
        return Likeness.SAME, "the rows are equal"
    if resemblance := _resemblance(fingerprint, other_fingerprint, pictures, is_namesake):
        return Likeness.PROBABLE, resemblance
    files_compared = bool(fingerprint.file and other_fingerprint.file)
    is_compared = rows_compared or pictures is not None or files_compared
    return (Likeness.OTHER if is_compared else Likeness.UNKNOWN), ""


def _resemblance(
    fingerprint: Fingerprint,
    other_fingerprint: Fingerprint,
    pictures: bool | None,
    is_namesake: bool,
) -> str:
    """What says that both may be of one recording, by one layer; empty: nothing does. pictures: are they alike?"""
    rows_compared = bool(fingerprint.rows and other_fingerprint.rows)
    if rows_compared and fingerprint.rows == other_fingerprint.rows:
        return "the rows are equal, the pictures are others"
    lengths_equal = fingerprint.num_frames == other_fingerprint.num_frames is not None
    if pictures and (by_pictures := BY_PICTURES.get((lengths_equal, rows_compared))):
        return by_pictures
    if (share := shared_rows(fingerprint.sketch, other_fingerprint.sketch)) >= MIN_SHARED_ROWS:
        return f"{share:.0%} of the rows are equal, the length is another"
    if is_namesake and not lengths_equal and is_of_one_scene(fingerprint, other_fingerprint):
        return "there are no rows, the pictures are of one scene, and the length is another"
    return ""


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
        partners = other_fingerprint.moments[camera]
        nearest = [
            min(map(int.bit_count, map(h.__xor__, partners))) for h in fingerprint.moments[camera]
        ]
        if nearest and sum(nearest) / len(nearest) <= MAX_BITS_OF_A_SCENE:
            return True
    return False


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
    sketches = first_sketch, second_sketch
    limit = min((max(sketch) for sketch in sketches if len(sketch) == SKETCH), default=math.inf)
    first = {row for row in first_sketch if row <= limit}
    second = {row for row in second_sketch if row <= limit}
    return len(first & second) / max(1, min(len(first), len(second)))


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
    """A recording that a dataset has, or had: its number for good, its last address, and what it is told by.

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


@dataclass(frozen=True)
class Address:
    """Where an episode lies now, by its name in the source; stamps: of its files, empty where they say nothing."""

    source_id: str
    stamp: str = ""
    source_stamp: str = ""


@dataclass(frozen=True)
class Placement:
    """Which recording an address holds.

    known: the recording; None: it is a new one. resembles: a known recording that the new one may
    be. is_sure: False: the files are others and nothing was there to compare them by, so that the
    pass over the pictures has to tell. fingerprint: what was read of the rows now.
    """

    stamp: str
    known: KnownRecording | None
    resembles: KnownRecording | None = None
    why: str = ""
    is_sure: bool = True
    fingerprint: Fingerprint = Fingerprint()


def place(
    formers: Mapping[str, KnownRecording],
    candidates: Iterable[KnownRecording],
    addresses: Sequence[Address],
    read: Callable[[str], Fingerprint],
    separated: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> dict[str, Placement]:
    """Which recording each address holds, by source id; asked at the listing, and with the pictures of what is decoded.

    formers: by source id the recording that was there. candidates: those that may be at any address. read: what the
    episode of a source id is told by, asked where files changed. separated: by source id recordings that it is not, as
    a person said. Linear in the number of recordings.
    """
    placed: dict[str, Placement] = {}
    waiting: list[tuple[Address, KnownRecording | None]] = []
    for address in addresses:
        former = formers.get(address.source_id)
        if former is not None and is_unchanged(former, address):
            placed[address.source_id] = Placement(address.stamp, former)
        else:
            waiting.append((address, former))
    placed_ids = {placement.known.recording for placement in placed.values() if placement.known}
    unplaced = RecordingIndex(r for r in candidates if r.recording not in placed_ids)
    # Where no recording is missing, as at the first listing, what is not placed is new
    is_comparable = unplaced.recordings or any(former for _, former in waiting)
    contents = {
        a.source_id: read(a.source_id) if is_comparable else Fingerprint() for a, _ in waiting
    }
    matches = dict(_matches(waiting, contents, unplaced, separated))
    for address, _ in waiting:
        name = address.source_id
        recording, degree, reason = matches.get(name, (None, Likeness.OTHER, ""))
        is_sure = degree != Likeness.UNKNOWN
        placed[name] = Placement(address.stamp, recording, None, reason, is_sure, contents[name])
        if degree == Likeness.PROBABLE:
            placed[name] = replace(placed[name], known=None, resembles=recording)
    return placed


type Match = tuple[KnownRecording, Likeness, str]  # how sure it is, and what says so


def _matches(
    waiting: Sequence[tuple[Address, KnownRecording | None]],
    contents: Mapping[str, Fingerprint],
    unplaced: "RecordingIndex",
    separated: Mapping[str, Collection[str]],
) -> Iterator[tuple[str, Match]]:
    """The recordings of addresses, each with the one that was there. Those that are equal come first, so that none is
    taken for a part of another, and of them those that stay in their place; a name says least."""
    ordered = sorted(waiting, key=lambda pair: not _stays(pair[1], contents[pair[0].source_id]))
    placed_names = set[str]()
    placed_ids = set[str]()
    for degree, (address, former) in product(tuple(Likeness), ordered):
        name = address.source_id
        if name in placed_names:
            continue
        if former is not None and former.recording in placed_ids:
            former = None
        match = _match(degree, contents[name], former, unplaced, separated.get(name, ()))
        if match is None:
            continue
        placed_names.add(name)
        placed_ids.add(match[0].recording)
        # By pictures several may look like one
        if match[1] != Likeness.PROBABLE or not contents[name].moments:
            unplaced.remove(match[0])
        yield name, match


def _stays(former: KnownRecording | None, fingerprint: Fingerprint) -> bool:
    return former is not None and likeness(former.fingerprint, fingerprint)[0] == Likeness.SAME


def _match(
    degree: Likeness,
    fingerprint: Fingerprint,
    former: KnownRecording | None,
    unplaced: "RecordingIndex",
    separated: Collection[str],
) -> Match | None:
    """The recording of an address, as surely as that: the one that was there, or one that may be anywhere."""
    if former is not None:
        likeness_of_former, reason = likeness(former.fingerprint, fingerprint, is_namesake=True)
        if likeness_of_former == degree != Likeness.OTHER:
            return former, degree, reason or "it has the name of that recording"
    if degree in (Likeness.SAME, Likeness.PROBABLE):
        return unplaced.closest(fingerprint, separated, is_sure=degree == Likeness.SAME)
    # The pictures have to tell, and have where they are known
    if former is None or fingerprint.moments or degree != Likeness.OTHER:
        return None
    part = "the rows" if former.fingerprint.rows and fingerprint.rows else "the bytes of the video"
    return former, Likeness.PROBABLE, f"it has the name of that recording, {part} are others"


def is_unchanged(recording: KnownRecording, address: Address) -> bool:
    """Do the files of an address look as they did when the recording was there?"""
    if recording.stamp:
        return recording.stamp == address.stamp
    return is_unstamped(recording, address)


def is_unstamped(recording: KnownRecording | None, record: Address | EpisodeRecord) -> bool:
    """Did an earlier version keep it without a stamp, in files of the sizes of now?"""
    return (
        recording is not None
        and not recording.stamp
        and bool(recording.source_stamp)
        and (recording.source_id, recording.source_stamp) == (record.source_id, record.source_stamp)
    )


class RecordingIndex:
    """Recordings by what they are told by, so that one need not be compared with all of them.

    A row or a picture that very many have, such as that of a common start, tells none apart and is
    not looked up. of_any_length: pictures are looked up of longer and shorter recordings, too.
    """

    def __init__(
        self, recordings: Iterable[KnownRecording], *, of_any_length: bool = False
    ) -> None:
        self._of_any_length = of_any_length
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
            for key in self._part_keys(recording.fingerprint):
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
        for key in self._part_keys(fingerprint):
            names = self._parts.get(key, ())
            if len(names) <= MAX_SHARING:
                shared.update(names)
        ordered = sorted(shared, key=lambda name: (-shared[name], name))
        return [self.recordings[name] for name in ordered if name in self.recordings]

    def _part_keys(self, fingerprint: Fingerprint) -> list[tuple[str, int, int]]:
        """What two fingerprints of probably one recording share some of: single rows; pictures of one moment."""
        keys = [("row", 0, row) for row in fingerprint.sketch]
        length = 0 if self._of_any_length else fingerprint.num_frames or 0
        for moments in fingerprint.moments.values():
            keys += [(f"picture {k}", length, moment) for k, moment in enumerate(moments)]
        return keys

    def closest(
        self, fingerprint: Fingerprint, without: Collection[str] = (), *, is_sure: bool = False
    ) -> Match | None:
        """The recording that a fingerprint is of, for sure or else probably; None where it is of none.

        without: ids of recordings that it is not, as a person said. is_sure: no probable one is wanted.
        """
        probable = None
        candidates = self.equal(fingerprint)
        if not is_sure:
            candidates += self.similar(fingerprint)
        for candidate in candidates:
            if candidate.recording in without:
                continue
            degree, reason = likeness(candidate.fingerprint, fingerprint)
            if degree == Likeness.SAME:
                return candidate, degree, reason
            if degree == Likeness.PROBABLE and probable is None and not is_sure:
                probable = candidate, degree, reason
        return probable


def whole_keys(fingerprint: Fingerprint) -> list[str]:
    """What is equal in two fingerprints of one recording: the rows, the bytes, or a content hash."""
    return [*filter(None, (fingerprint.rows, fingerprint.file)), *sorted(fingerprint.contents)]


def remembered_splits(
    records: Sequence[EpisodeRecord],
    placed: Mapping[str, Placement],
    known_recordings: Iterable[KnownRecording],
) -> dict[str, str]:
    """The split of each listed group, by the recordings that it has now; held-out splits before train.

    A group that is named in the source also keeps what its recordings had that are away.
    """
    splits_away = grouped(
        (recording.group, recording.split)
        for recording in known_recordings
        if recording.split
        and not recording.is_here
        # The name of a group of one episode is its address, and says nothing of the recording
        and recording.group not in ("", recording.source_id)
        and not OWN_GROUP.fullmatch(recording.group)
    )
    formers = ((r.group, placed[r.source_id]) for r in records)
    splits_here = grouped(
        (group, recording.split)
        for group, placement in formers
        if (recording := placement.known or placement.resembles) and recording.split
    )
    # Of recordings that were joined to one group: a split that is held out, if there is one
    return {
        group: min(splits, key=lambda split: (split == "train", split))
        for group, splits in (splits_away | splits_here).items()
    }
