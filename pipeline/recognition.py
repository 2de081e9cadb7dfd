"""Which recording each decoded episode is: what the listing took it for, another
one that is known, or a new one.

The listing goes by names, files and rows; here the pictures are known, too. What
is withdrawn is found here wherever it turns up, before anything of it is stored.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache

from ingest.episode import Finding
from ingest.recordings import Fingerprint, KnownRecording, Likeness, RecordingIndex, likeness
from warehouse.lake import Lake
from warehouse.lake.recordings import (
    FRAMES,
    RecordingUpdate,
    decided_apart,
    known_recordings,
    new_id,
    take_over,
    withdrawn_recordings,
)
from warehouse.lake.statements import TAKEDOWN, say


@dataclass
class Recognition:
    """The recordings of the decoded episodes of a chunk.

    recordings, stamps, contents: by episode its recording, the stamp of its
    files, and the content hashes that it has had. withdrawn: episodes that are,
    or may be, a recording that was taken down. changed: those whose files were
    exchanged after they were listed. takedowns: marks to add, since a withdrawn
    recording turned up at another place.
    """

    update: RecordingUpdate
    recordings: dict[int, str] = field(default_factory=dict)
    stamps: dict[int, str] = field(default_factory=dict)
    contents: dict[int, frozenset[str]] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    takedowns: list[dict] = field(default_factory=list)

    def take_down(self, lake: Lake) -> None:
        """Say of recordings that were taken down elsewhere that they are taken down here."""
        known = set(lake.column("SELECT recording FROM takedowns"))
        self.takedowns = [row for row in self.takedowns if row["recording"] not in known]
        if self.takedowns:
            places = {
                (row["dataset"], row["episode_index"]): row["recording"] for row in self.takedowns
            }
            say(lake, TAKEDOWN, lambda: self.takedowns, places)


def recognise(
    lake: Lake,
    dataset: str,
    chunk_size: int,
    chunk: int,
    decoded: Mapping[int, Fingerprint],
    stamps: Mapping[int, str],
) -> Recognition:
    """Compare the fingerprints of a chunk's decoded episodes, by number, with the
    recordings that are known.

    stamps: of the files of all of its episodes, as they were afterwards.
    """
    recognition = Recognition(RecordingUpdate(dataset, FRAMES))
    with lake.reading():
        condition = "r.dataset = ? AND r.left_at IS NULL AND r.episode_index // ? = ?"
        values = [dataset, chunk_size, chunk]
        present = known_recordings(lake, condition, values, dataset=dataset, chunk=chunk)
        resembled = {recording.resembles for recording in present if recording.resembles}
        departed = known_recordings(
            lake,
            "r.dataset = ? AND r.left_at IS NOT NULL OR list_contains(?, r.recording)",
            [dataset, sorted(resembled)],
        )
        withdrawn = withdrawn_recordings(lake)
        separated = decided_apart(lake, dataset)
    at_number = {recording.episode_index: recording for recording in present}
    candidates = RecordingIndex(departed)
    down = RecordingIndex(recording for recording, _ in withdrawn)
    reasons = {recording.recording: reason for recording, reason in withdrawn}

    @cache
    def ids() -> set[str]:
        # Also of recordings that are at other places now: an id is never given again
        return set(lake.column("SELECT recording FROM recordings WHERE dataset = ?", [dataset]))

    # Files that are not those that were listed may still hold what is known of the recording
    recognition.changed = {
        k
        for k, recording in at_number.items()
        if recording.stamp not in ("", stamps.get(k, recording.stamp))
        and likeness(recording.fingerprint, decoded.get(k, Fingerprint()))[0] != Likeness.SAME
    }
    for episode, fingerprint in sorted(decoded.items()):
        former_recording = at_number.get(episode)
        if former_recording is None or episode in recognition.changed:
            continue
        other_recordings = separated.get(former_recording.recording, frozenset())
        recognised = _recognised(
            recognition.update, former_recording, fingerprint, candidates, ids, other_recordings
        )
        recognised = _without_withdrawn(
            recognition, recognised, fingerprint, down, reasons, other_recordings
        )
        recognition.recordings[episode] = recognised.recording
        recognition.stamps[episode] = recognised.stamp
        recognition.contents[episode] = recognised.fingerprint.contents
    recognition.update.keep_pictures(lake)
    return recognition


def _recognised(
    update: RecordingUpdate,
    former_recording: KnownRecording,
    fingerprint: Fingerprint,
    candidates: RecordingIndex,
    ids: Callable[[], set[str]],
    other_recordings: Collection[str],
) -> KnownRecording:
    """The recording of an episode that the listing took for `former_recording`;
    what differs is noted in `update`.

    other_recordings: recordings that it is not, as a person said.
    """
    # The same files as when it was decoded last hold the same recording, however they are read by now
    if former_recording.decoded_stamp and former_recording.decoded_stamp == former_recording.stamp:
        return former_recording
    degree, _ = likeness(former_recording.fingerprint, fingerprint)
    is_other = not former_recording.fingerprint.is_empty and degree in (
        Likeness.PROBABLE,
        Likeness.OTHER,
    )
    if is_other:
        present = _new_recording(update, former_recording, fingerprint, ids)
        match = _compared(former_recording, fingerprint) or candidates.closest(
            fingerprint, other_recordings
        )
    elif former_recording.fingerprint.contents and former_recording.resembles is None:
        return former_recording  # decoded before, and found to be itself
    else:
        present = former_recording.changed(
            fingerprint=fingerprint.filled(former_recording.fingerprint)
        )
        resembled = candidates.recordings.get(former_recording.resembles or "")
        if resembled:
            match = _compared(resembled, fingerprint)
        else:
            match = candidates.closest(fingerprint, other_recordings)
    if match is None:
        return _unlike(update, former_recording, present, is_other=is_other)
    former, degree, reason = match
    if degree == Likeness.SAME:
        update.put(
            present.changed(
                is_here=False, resembles=None, why=f"it is the recording {former.recording}"
            )
        )
        placed = take_over(former, present)
        candidates.remove(former)
        update.put(placed)
        update.put_fingerprint(placed)
        update.note(
            "moved" if former.source_id != placed.source_id else "back", former, placed, reason
        )
        return placed
    if present.resembles != former.recording:
        update.note("probable", former, present, reason)
    if present.resembles != former.recording or present.why != reason or is_other:
        present = present.changed(resembles=former.recording, why=reason)
        update.put(present)
    return present


def _compared(
    candidate: KnownRecording, fingerprint: Fingerprint
) -> tuple[KnownRecording, Likeness, str] | None:
    """A recording, how sure it is that the fingerprint is of it, and why; None: it is of another one."""
    degree, reason = likeness(candidate.fingerprint, fingerprint)
    if degree in (Likeness.SAME, Likeness.PROBABLE):
        return (candidate, degree, reason)
    return None


def _new_recording(
    update: RecordingUpdate,
    former_recording: KnownRecording,
    fingerprint: Fingerprint,
    ids: Callable[[], set[str]],
) -> KnownRecording:
    """A new recording in the place of one that was there; that one is gone from it."""
    present = former_recording.changed(
        recording=new_id(former_recording.dataset, former_recording.source_id, ids()),
        resembles=None,
        why="",
        fingerprint=fingerprint,
    )
    ids().add(present.recording)
    update.put(former_recording.changed(is_here=False))
    update.put_fingerprint(former_recording)
    update.put(present)
    update.put_fingerprint(present)
    return present


def _unlike(
    update: RecordingUpdate,
    former_recording: KnownRecording,
    present: KnownRecording,
    *,
    is_other: bool,
) -> KnownRecording:
    """An episode that is like no known recording."""
    # It had the name of that recording, or was like it in its rows; the pictures tell that it is another one
    is_unlike = present.resembles is not None and bool(present.fingerprint.moments)
    if is_other or is_unlike:
        update.note(
            "changed", former_recording, present, "rows and pictures are those of another recording"
        )
    if is_unlike and not is_other:
        present = present.changed(resembles=None, why="")
        update.put(present)
    return present


def _without_withdrawn(
    recognition: Recognition,
    recording: KnownRecording,
    fingerprint: Fingerprint,
    withdrawn: RecordingIndex,
    reasons: Mapping[str, str],
    other_recordings: Collection[str],
) -> KnownRecording:
    """Leave an episode out that is, or may be, a recording that was taken down anywhere.

    other_recordings: recordings that it is not, as a person said.
    """
    for name in (recording.recording, recording.resembles):
        if name is not None and name in reasons:
            is_sure = name == recording.recording
            _leave_out(
                recognition,
                recording.episode_index,
                reasons[name],
                withdrawn.recordings[name],
                is_sure=is_sure,
            )
            return recording
    match = withdrawn.closest(fingerprint, other_recordings)
    if match is None:
        return recording
    former, degree, match_reason = match
    reason = reasons[former.recording]
    if degree == Likeness.SAME:
        text = f"the same recording as episode {former.episode_index} of {former.dataset}: {reason}"
        recognition.takedowns.append(
            {
                "dataset": recording.dataset,
                "episode_index": recording.episode_index,
                "recording": recording.recording,
                "comment": text,
                "created_at": recognition.update.now,
            }
        )
        _leave_out(recognition, recording.episode_index, text, former, is_sure=True)
        return recording
    recording = recording.changed(resembles=former.recording, why=match_reason)
    recognition.update.put(recording)
    recognition.update.note("probable", former, recording, match_reason)
    _leave_out(recognition, recording.episode_index, reason, former, is_sure=False)
    return recording


def _leave_out(
    recognition: Recognition, episode: int, reason: str, former: KnownRecording, *, is_sure: bool
) -> None:
    """Keep an episode out of all tables, with the reason."""
    text = reason
    if not is_sure:
        dataset = recognition.update.dataset
        text = (
            f"it is probably recording {former.recording} of {former.dataset}, which was taken down ({reason}): "
            f"proccorpus recordings same {dataset} {episode}, or other {dataset} {episode}, decides"
        )
    recognition.withdrawn.add(episode)
    recognition.findings.append(Finding("taken_down", text, episode_index=episode))
