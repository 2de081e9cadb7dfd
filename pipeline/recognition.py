"""Whether each decoded episode is the recording that the listing took it for.

The listing goes by names, files and rows; here the pictures are known, too. An episode that turns
out to be another recording, known or new, is left out: the build lists its dataset once more, and
has it under the number of that recording. What is withdrawn is found here wherever it turns up,
before anything of it is stored.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ingest.episode import Finding
from ingest.recordings import (
    NO_NUMBER,
    Address,
    Fingerprint,
    KnownRecording,
    Likeness,
    Placement,
    RecordingIndex,
    likeness,
    place,
)
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.recordings import (
    FRAMES,
    RecordingUpdate,
    decided_apart,
    known_recordings,
    new_id,
    withdrawn_recordings,
)
from warehouse.lake.statements import TAKEDOWN, Home, Known, mark_of_copy, say


@dataclass
class Recognition:
    """The recordings of the decoded episodes of a chunk.

    recordings: by episode its recording, with the contents that it has had. withdrawn: episodes
    that are, or may be, a recording that was taken down. changed: those whose files were exchanged
    after they were listed. elsewhere: those that are another recording than the number's. takedowns:
    marks to add, since a withdrawn recording turned up at another place.
    """

    update: RecordingUpdate
    recordings: dict[int, KnownRecording] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    elsewhere: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    takedowns: list[dict] = field(default_factory=list)

    @property
    def left_out(self) -> set[int]:
        return self.withdrawn | self.changed | self.elsewhere


def recognise(
    rows: ChunkRows,
    dataset: str,
    chunk_size: int,
    chunk: int,
    decoded: Mapping[int, Fingerprint],
    stamps: Mapping[int, str],
) -> Recognition:
    """Compare the fingerprints of a chunk's decoded episodes, by number, with the
    recordings that are known. Recordings that were taken down elsewhere are taken down here, too.

    stamps: of the files of all of its episodes, as they were afterwards.
    """
    recognition = Recognition(RecordingUpdate(dataset, FRAMES))
    lake = rows.whole
    condition = "r.left_at IS NULL AND r.episode_index // ? = ?"
    present = known_recordings(rows, condition, [chunk_size, chunk], "true")
    resembled = {recording.resembles for recording in present if recording.resembles}
    # Also of recordings that left: an id is never given again
    recording_rows = rows.rows("SELECT recording, left_at IS NOT NULL FROM recordings")
    ids = {recording for recording, _ in recording_rows}
    departed: list[KnownRecording] = []
    with lake.reading():
        if resembled or any(has_left for _, has_left in recording_rows):
            condition = "r.dataset = ? AND r.left_at IS NOT NULL OR list_contains(?, r.recording)"
            departed = known_recordings(lake, condition, [dataset, sorted(resembled)])
        withdrawn = withdrawn_recordings(lake)
        separated = decided_apart(lake)
    down = RecordingIndex((recording for recording, _ in withdrawn), of_any_length=True)
    reasons = {recording.recording: reason for recording, reason in withdrawn}
    listed_by_name = _decoded_as_listed(recognition, present, decoded, stamps)
    placements = _placements(listed_by_name, departed, decoded, separated)
    for name, listed in listed_by_name.items():
        episode = listed.episode_index
        recognised = _recognised(recognition.update, listed, placements[name], ids)
        recognised = _without_withdrawn(
            recognition,
            episode,
            recognised,
            decoded[episode],
            down,
            reasons,
            separated.get(listed.recording, ()),
        )
        recognition.recordings[episode] = recognised
        if recognised.recording != listed.recording:
            recognition.elsewhere.add(episode)
        elif not recognised.stamp:
            recognition.recordings[episode] = replace(recognised, stamp=stamps[episode])
            recognition.update.put(recognition.recordings[episode])
    # What the table of contents says of an episode goes when it is left out: its recording is told by that later
    for listed in present:
        is_stored = listed.episode_index in recognition.recordings.keys() - recognition.left_out
        if not is_stored and not listed.fingerprint.is_empty:
            recognition.update.put_fingerprint(listed)
    recognition.update.keep_pictures(lake)
    recordings: dict[Home, Known] = {
        (dataset, row["episode_index"]): (row["recording"], row["source_id"], None)
        for row in recognition.takedowns
    }
    if recordings:
        say(lake, TAKEDOWN, lambda: recognition.takedowns, recordings, is_batch=False)
    return recognition


def _decoded_as_listed(
    recognition: Recognition,
    present: Sequence[KnownRecording],
    decoded: Mapping[int, Fingerprint],
    stamps: Mapping[int, str],
) -> dict[str, KnownRecording]:
    """The decoded recordings by source id; without those whose files are not what was listed, which are `changed`."""
    listed_by_name = {}
    for listed in present:
        episode = listed.episode_index
        fingerprint = decoded.get(episode, Fingerprint())
        # Other files may still hold what is known of the recording
        is_same = likeness(listed.fingerprint, fingerprint)[0] == Likeness.SAME
        if not is_same and listed.stamp not in ("", stamps.get(episode, listed.stamp)):
            recognition.changed.add(episode)
        elif episode in decoded:
            listed_by_name[listed.source_id] = listed
    return listed_by_name


def _placements(
    listed_by_name: Mapping[str, KnownRecording],
    departed: Sequence[KnownRecording],
    decoded: Mapping[int, Fingerprint],
    separated: Mapping[str, Collection[str]],
) -> dict[str, Placement]:
    """Which recording each address holds by its pictures, too."""
    resembled = {recording.recording: recording for recording in departed}
    placements: dict[str, Placement] = {}
    formers: dict[str, KnownRecording] = {}
    for name, listed in listed_by_name.items():
        if _is_itself(listed, decoded[listed.episode_index]):
            placements[name] = Placement(listed.stamp, listed)
        # What was decoded before is compared with itself, what was not with what it may be by its rows
        elif listed.fingerprint.contents:
            formers[name] = listed
        elif listed.resembles in resembled:
            formers[name] = resembled[listed.resembles]
    return placements | place(
        formers,
        departed,
        [Address(name) for name in listed_by_name if name not in placements],
        lambda name: decoded[listed_by_name[name].episode_index],
        {name: separated.get(listed.recording, ()) for name, listed in listed_by_name.items()},
    )


def _is_itself(listed: KnownRecording, fingerprint: Fingerprint) -> bool:
    """Is an episode what the listing took it for, whatever its pictures show?"""
    # The same files as when it was decoded last hold the same recording, however they are read by now
    if listed.decoded_stamp and listed.decoded_stamp == listed.stamp:
        return True
    # An earlier version kept neither rows nor a stamp: in files of the sizes of then, what looks like it is it
    if listed.stamp or listed.fingerprint.rows:
        return False
    degree, _ = likeness(listed.fingerprint, fingerprint, is_namesake=True)
    return degree == Likeness.PROBABLE


def _recognised(
    update: RecordingUpdate, listed: KnownRecording, placement: Placement, ids: set[str]
) -> KnownRecording:
    """The recording of an episode that the listing took for `listed`; what differs is noted in `update`."""
    former = placement.known
    if former is listed or not placement.is_sure:
        return listed
    is_other = bool(listed.fingerprint.contents)
    present = replace(listed, fingerprint=placement.fingerprint.filled(listed.fingerprint))
    if is_other:
        present = replace(
            listed,
            recording=new_id(listed.dataset, listed.source_id, ids),
            episode_index=NO_NUMBER,
            resembles=None,
            why="",
            fingerprint=placement.fingerprint,
        )
        ids.add(present.recording)
        for recording in (replace(listed, is_here=False), present):
            update.put(recording)
            update.put_fingerprint(recording)
    if former is not None:
        placed = update.take_over(former, present, f"it is the recording {former.recording}")
        is_moved = former.source_id != placed.source_id
        update.note("moved" if is_moved else "back", former, placed, placement.why)
        return placed
    resembled = placement.resembles
    compared = replace(present, resembles=None, why="")
    if resembled:
        compared = replace(present, resembles=resembled.recording, why=placement.why)
    if resembled and present.resembles != compared.resembles:
        update.note("probable", resembled, present, placement.why)
    # It had the name of a recording, or was like it in its rows; the pictures tell that it is another one
    elif resembled is None and (is_other or present.resembles):
        update.note("changed", listed, present, "rows and pictures are those of another recording")
    if compared != present:
        update.put(compared)
    return compared


def _without_withdrawn(
    recognition: Recognition,
    episode: int,
    recording: KnownRecording,
    fingerprint: Fingerprint,
    withdrawn: RecordingIndex,
    reasons: Mapping[str, str],
    separate_recordings: Collection[str],
) -> KnownRecording:
    """Leave an episode out that is, or may be, a recording that was taken down anywhere.

    separate_recordings: recordings that it is not, as a person said.
    """
    for name in (recording.recording, recording.resembles):
        if name is not None and name in reasons:
            is_sure = name == recording.recording
            former = withdrawn.recordings[name]
            _leave_out(recognition, episode, reasons[name], former, is_sure=is_sure)
            return recording
    match = withdrawn.closest(fingerprint, separate_recordings)
    if match is None:
        return recording
    former, degree, match_reason = match
    reason = reasons[former.recording]
    if degree == Likeness.SAME:
        mark = mark_of_copy((recording.dataset, episode), former, reason)
        of_recording = {"recording": recording.recording, "source_id": recording.source_id}
        recognition.takedowns.append(mark | of_recording)
        _leave_out(recognition, episode, mark["comment"], former, is_sure=True)
        return recording
    recording = replace(recording, resembles=former.recording, why=match_reason)
    recognition.update.put(recording)
    recognition.update.note("probable", former, recording, match_reason)
    _leave_out(recognition, episode, reason, former, is_sure=False)
    return recording


def _leave_out(
    recognition: Recognition, episode: int, reason: str, former: KnownRecording, *, is_sure: bool
) -> None:
    """Keep an episode out of all tables, with the reason."""
    text = reason
    if not is_sure:
        text = (
            f"it is probably recording {former.recording} of {former.dataset}, which was taken down ({reason}): "
            f"proccorpus say recording {recognition.update.dataset} {episode} true, or false, decides"
        )
    recognition.withdrawn.add(episode)
    recognition.findings.append(Finding("taken_down", text, episode_index=episode))
