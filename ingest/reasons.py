"""Why a dataset, an episode or a camera cannot be used, or is doubtful: the closed list of reason codes, and limits.

docs/quarantine.md is made from it (docs/make_reference.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from core.errors import UserError
from core.names import FORMER_REASONS

MAX_PROBLEM = 160  # letters of a library's message
type Errors = type[Exception] | tuple[type[Exception], ...]


class Reason(NamedTuple):
    """What a code says to the person who has to act on it, in sentences.

    severity: unusable or warning; empty: a warning beside something usable, else unusable. effect: what it does to
    labels, and to what is trained on them.
    """

    meaning: str
    remedy: str
    severity: str = ""
    effect: str = "It is labelled as it is."


CHANGED_DURING_BUILD = "changed_during_build"


class DataError(Exception):
    """Something of a source cannot be read: what, and where; `reason` is a code of REASONS."""

    def __init__(self, message: str, reason: str = "unreadable_data") -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def guarded(description: str, errors: Errors = Exception) -> Iterator[None]:
    """What a library raises inside the block, for what is damaged, becomes a DataError."""
    try:
        yield
    except (DataError, UserError):
        raise
    except errors as e:
        text = e.strerror if isinstance(e, OSError) and e.strerror else str(e).strip("'\"")
        problem = " ".join(text.split())[:MAX_PROBLEM] or type(e).__name__
        raise DataError(f"{description}: cannot be read ({problem})") from e


def trouble(e: DataError | MemoryError) -> tuple[str, str]:
    """Reason and detail of a finding."""
    if isinstance(e, DataError):
        return (e.reason, str(e))
    return ("over_limit", f"it takes more memory than it may ({e})")


R = Reason
REASONS = {
    # The dataset
    "no_metadata": R(
        "the dataset's own description is missing, empty or unreadable, or it does not name the features",
        "fetch the metadata again (LeRobot: meta/info.json; RLDS: features.json and dataset_info.json)",
    ),
    "no_episodes": R(
        "the source was recognised, but it lists no episode",
        "check that the download is complete, and that the folder is the dataset's root",
        severity="unusable",
    ),
    "camera_without_files": R(
        "the camera is declared, but no episode has a file of it",
        "fetch its files, or remove the camera from the metadata; the registry's `cameras` has the source's names",
        severity="warning",
    ),
    "path_escape": R(
        "a link, a path or a name is not followed: it points outside the dataset's folder, or is no UTF-8 text",
        "copy the file into the folder, correct the path, or rename the file",
    ),
    "stray_file": R(
        "a file in the layout's folders that the metadata does not name",
        "remove it, or list its episodes in the metadata",
        severity="warning",
    ),
    "path_template": R(
        "the metadata's path template matches no file; the standard layout or a search was used",
        "correct data_path or video_path in meta/info.json",
        severity="warning",
    ),
    "human_demonstration": R(
        "a folder shows a person at the task, not a robot; it is left out", "nothing to do"
    ),
    # Rows
    "pickled_data": R(
        "a file holds pickled Python objects, which could run code; it is not read",
        "store it again as a plain array (numpy.save with allow_pickle=False), one row per frame",
    ),
    "no_data": R(
        "rows of an episode are missing: there is no table with them, or the numbers of episodes leave some out",
        "fetch the data file; nothing to do if episodes were removed on purpose",
    ),
    "unreadable_data": R(
        "a file with rows or metadata cannot be read: truncated, damaged, or not what its name says; or rows that a "
        "stage made break rules of their table",
        "fetch it again; a Parquet file that its recorder never closed is lost. A stage's rows: build again",
    ),
    "over_limit": R(
        "a file claims more rows, values, pixels, frames or bytes than the limits allow, or takes more memory or "
        "CPU time than its size allows; it is not read",
        "if the data is meant to be this large, raise that limit in the registry entry (limits)",
    ),
    "rows_not_read": R(
        "files that may hold rows are beside the videos, but in an unknown layout: only the pictures are used",
        "convert the dataset to a layout of docs/formats.md; nothing to do if the pictures are enough",
        severity="warning",
    ),
    "part_not_used": R(
        "the source holds something that is not read; the detail names it, its shape and why",
        "if it is the state, the action, a camera or a text of the run, name it in the registry entry (keys, "
        "cameras, gripper); else nothing to do",
    ),
    "other_layout": R(
        "the files or their rows are in a layout that is not read so; the detail names it",
        "convert them, by the layout's own tools, to one that docs/formats.md describes",
    ),
    "lfs_pointer": R(
        "the file is a git-LFS pointer, not the file itself", "run `git lfs pull` in the dataset"
    ),
    "not_in_metadata": R(
        "there are rows of an episode that the metadata does not list",
        "add the episode to the metadata, or remove its rows",
        severity="warning",
    ),
    "length_differs": R(
        "the metadata, or a camera's pictures, have another length than the rows; the number of rows is used",
        "write the metadata again from the rows; cut the video to the rows, or the rows to the video",
    ),
    "row_order": R(
        "the episode's rows are not consecutive in the file",
        "sort the file by episode and frame",
        severity="unusable",
    ),
    "nan_state": R(
        "state, action or gripper holds values that are not finite numbers; labels do without those that are NaN",
        "correct the values at the source, or leave the runs out: `proccorpus export lerobot --without nan_state`",
    ),
    "timestamp_drift": R(
        "the rows' times do not follow the frame rate, or the pictures of a LeRobot video are not at them, also "
        "once LeRobot rounds both; the detail says how far, and how pictures were matched",
        "nothing to do for labels, or when frames were dropped in recording; `proccorpus export lerobot` writes "
        "equal times; for rounding `tolerance_s=0.001` is enough",
        severity="warning",
        effect="Seconds in labels are those of frames, not of the clock.",
    ),
    "frame_rate": R(
        "the rows' times give another frame rate than the metadata states; the measured rate is used",
        "correct fps in the metadata, or set fps in the registry entry to overrule both",
        severity="warning",
    ),
    "no_frame_rate": R(
        "neither the source nor the registry states the frame rate; a default is used",
        "set fps in the registry entry",
    ),
    "missing_topic": R(
        "a recording lacks a topic that the registry names, or has one message of it; the episode is built without "
        "it",
        "check the recorder's list of topics; correct `keys` in the registry entry if the name has changed",
    ),
    "unsorted_stamps": R(
        "messages of a recording's topics are not in order of time, share their times, or leave a gap; the detail "
        "says what is used",
        "nothing to do for a few; else stamp all messages by one clock, and look whether a driver stalled",
    ),
    "cut_off": R(
        "a recording lacks messages: it ends without its end mark, as when the recorder was killed, a file of it or "
        "its log is not read, or a video begins without a key frame; the rest is used",
        "nothing to do if that is enough; `mcap recover` rewrites a file, sqlite3 takes a `.db3-wal` in once it opens "
        "the file to write",
    ),
    "bad_episode_ends": R(
        "ends of episodes are missing, do not rise, leave rows over, or lie within an episode",
        "write it again: for each episode the row after its last one, counted from the store's first row",
    ),
    "unknown_codec": R(
        "an array has an unsupported encoding, or a codec whose package is not installed; it is not used",
        "for Blosc and JPEG XL: `pip install imagecodecs`; else write the array again, as the detail says",
    ),
    "missing_chunks": R(
        "chunks of a Zarr camera are not stored, and are read as the fill value",
        "nothing to do for black pictures; else copy the store again",
    ),
    "never_ends": R(
        "no step is marked as the episode's last (RLDS: is_last, is_terminal): the episode may be cut off",
        "convert them again; else import their outcomes (`proccorpus say outcome`): labels go by them, not by the "
        "marks",
        severity="warning",
    ),
    # Grippers and hands
    "no_gripper": R(
        "no gripper or hand was found among the dimensions of state and action: labels use only the arm",
        "name its dimension in the registry entry (gripper: {column: ..., dimension: ...}), or `column: none`",
        severity="warning",
        effect="Steps are cut by speed alone, and have no names.",
    ),
    "gripper_unused": R(
        "the gripper does not move, or only trembles, in all surveyed episodes",
        "nothing to do if the task needs no gripper; else name another dimension in the registry entry",
        severity="warning",
    ),
    "polarity_unknown": R(
        "the gripper or hand moves, but the data does not show which end is open: labels use its moves, not their "
        "direction",
        "set `closed` and `open` of it in the registry entry: look at one episode's pictures",
        severity="warning",
    ),
    # Pictures
    "no_video": R(
        "no camera of the episode has pictures",
        "fetch the videos; a dataset without pictures cannot be labelled",
        severity="unusable",
    ),
    "missing_camera": R(
        "this camera has no pictures for the episode", "fetch its file", severity="warning"
    ),
    "bad_video_pointer": R(
        "the metadata does not say where the episode's video is, or what it says cannot be right",
        "write the metadata again (LeRobot: from_timestamp, chunk_index and file_index of each camera)",
        severity="warning",
    ),
    "undecodable_video": R(
        "a video or picture cannot be decoded, or the decoder filled in damaged parts of frames",
        "fetch it again, or encode it again; damage in up to a tenth of the frames is a warning, more makes the "
        "camera unusable",
    ),
    # The checkup: faults inside runs that can be read. The view run_checks has each stretch
    "camera_frozen": R(
        "the camera shows one picture, while the arm or another camera moves, or in all frames",
        "use another camera for these runs, or leave them out: `proccorpus export lerobot --without camera_frozen`",
        effect="Progress rises over a picture that does not change: a model learns that from this camera.",
    ),
    "camera_black": R(
        "the camera is black for a stretch, or in all frames",
        "use another camera for these runs, or leave them out: `proccorpus export lerobot --without camera_black`",
        effect="Samples of this stretch show nothing from this camera.",
    ),
    "camera_moved": R(
        "the camera stands or looks otherwise than in the other runs: it was moved, turned, or its exposure "
        "changed",
        "nothing to do if the camera was moved on purpose; else leave the runs out, or collect them again",
        effect="Labels by motion are as good; a model sees a second view.",
    ),
    "camera_jumps": R(
        "from one frame to the next the camera shows something else, or its brightness or sharpness leaps",
        "look at that frame: pictures may be cut out, or of another run; switch automatic exposure and focus off",
        effect="A leap of pictures can pass for a motion: a boundary of a step that is none.",
    ),
    "rows_late": R(
        "the rows, or a recorded signal, are behind or ahead of the pictures by a fixed time",
        "write rows and pictures by one clock; labels correct for a lag that is large and certain in several runs",
        severity="warning",
        effect="Steps begin and end as much too late or too early in the pictures, unless it is corrected for.",
    ),
    "state_jumps": R(
        "the state jumps for a frame or two and comes back: no arm moves so fast",
        "correct the values at the source, or leave the run out",
        effect="A jump can pass for a motion: a boundary of a step that is none.",
    ),
    "state_stuck": R(
        "the state keeps one value for a stretch, while pictures show that the arm moves",
        "the driver stalled: leave the run out, or record it again",
        effect="The arm seems to rest: a step is cut, or called idle.",
    ),
    "action_clipped": R(
        "the action stays at one highest value for much of the run, which the other runs go beyond",
        "record the run again with the other runs' limits, or leave it out",
        effect="Labels hardly use actions; a policy that learns from them is too slow or too weak.",
    ),
    "dead_dimension": R(
        "a dimension keeps one value in this run, and moves in the other runs of its task",
        "check the joint's sensor or the recorder's list of joints; leave the run out",
        effect="What this joint does starts and ends no step.",
    ),
    "other_scale": R(
        "a dimension has another unit, offset or sign than in the other runs, or than its action",
        "convert the values at the source (degrees and radians, a calibration, a sign), or leave the run out",
        effect="Comparisons with the task's other runs are wrong; a policy goes too far, or the wrong way.",
    ),
    "gripper_stays": R(
        "the gripper does not close in this run, and does in the other runs of its task",
        "look at the pictures: the gripper's signal was lost, or the run failed before the grasp",
        effect="No grasp is seen: steps are cut by speed alone, and have no names.",
    ),
    "copy": R(
        "the run is a copy of another one, by rows, pictures or both; the detail says which",
        "take one of the two down: `proccorpus takedown DATASET --episodes N --reason TEXT`",
        effect="The run counts twice in training; with its copy in a test split, the test is none.",
    ),
    "other_pictures": R(
        "the pictures are those of another run, whose rows are others",
        "copy the run's own videos; until then leave it out",
        effect="Steps are said of pictures that show something else.",
    ),
    "frames_missing": R(
        "the rows' times leave out frames",
        "nothing to do for labels, which go by frames; a policy that counts frames as time may leave the run out",
        effect="Progress jumps where frames are missing.",
    ),
    "idle_end": R(
        "nothing moves for long at the run's start or end, unlike in the other runs",
        "cut the stretch off at the source; or nothing to do: labels call it idle",
        effect="The label calls it idle: progress stands still for that long.",
    ),
    "text_differs": R(
        "the run does what the runs of another text do, and not what those of its own text do",
        "look at it, and correct its text at the source",
        effect="Steps have the names of another task.",
    ),
    "outcome_differs": R(
        "the run is said to have succeeded, and ends like what the others of its task show before their end",
        "look at its end; say how it ended (`proccorpus say outcome DATASET --set file=FILE`), and accept the check",
        effect="Progress goes to the end of a task that was perhaps not done.",
    ),
    "stale_statistics": R(
        "the stored statistics (meta/stats.json, meta/episodes_stats.jsonl) are not those of the data, or "
        "unreadable",
        "compute them again with the dataset's tools; a policy that normalises by them is trained wrongly",
        effect="Labels do not read them; a policy that normalises by them is trained wrongly.",
    ),
    # The episode
    "too_short": R(
        "the episode has fewer frames than a label needs",
        "lower min_frames in the build's configuration, if such short episodes are of use",
        severity="unusable",
    ),
    CHANGED_DURING_BUILD: R(
        "another recording took its place; nothing of it is stored", "build again"
    ),
    "duplicate_episode": R(
        "the source holds the same episode twice; only the first is used",
        "nothing to do, or remove the copy",
    ),
    "taken_down": R(
        "the episode was taken down",
        "the detail gives the reason; `proccorpus takedown --undo` takes it back",
    ),
    "known_bad": R(
        "the source or the registry entry marks the episode as broken",
        "nothing to do; the registry entry gives its reason",
        severity="unusable",
    ),
    "no_task": R(
        "the episode has no instruction, or one that the registry calls uninformative; it is built without",
        "add the instruction at the source, or say what all runs do: build --task TEXT, or task in the registry "
        "entry",
        severity="warning",
        effect="Steps have no names of things, the run is compared with no other, and none is labelled like it.",
    ),
    "task_from_name": R(
        "the instruction comes from the file's name, by the dataset's convention",
        "nothing to do, or store the instruction in the file",
    ),
    "bad_steps": R(
        "the source has no subtask spans though the annotator native asks for them, or they overlap, run "
        "backwards, leave the episode or have no text; motion labels the episode. Or a failed run is measured against "
        "one whose progress is not known: its end is a guess",
        "nothing to do, or add or correct the spans at the source",
        severity="warning",
    ),
    "steps_lost": R(
        "an edit of the dataset has lost what names its steps, as LeRobot's tools do; such steps are not used",
        "copy the file of texts from the dataset before the edit (after a merge only if all parts had the same), "
        "or write the column's numbers and stats/task_index of meta/episodes anew by meta/tasks.parquet; or export "
        "again",
        severity="warning",
    ),
    "steps_differ": R(
        "the source has steps of the episode in several forms, which differ; docs/formats.md says which one is "
        "used",
        "remove or correct the wrong form",
        severity="warning",
    ),
    # The annotator. Without an answer an episode has no label, and the next build asks about it again
    "bad_reply": R(
        "both of the model's replies could not be read",
        "see whether the server honours response_format, or try another model",
    ),
    "cut": R(
        "the model's replies were cut off, also with room for thinking",
        "switch the model's thinking off at its server",
    ),
    "refusal": R(
        "the model declined to answer",
        "look at the task's text and the pictures, or try another model",
    ),
    "filtered": R(
        "the server's content filter took the model's replies away",
        "look at the task's text and the pictures, or try another server",
    ),
    "wrong_request": R(
        "the model's server does not take the request",
        "read the detail: often there are too many pictures or tokens",
    ),
    "refused": R("the model's server does not answer this question", "read the detail"),
    "task_inferred": R(
        "the source has no instruction; the annotator guessed one from the pictures",
        "read it in episode_labels.task; if it is wrong, add an instruction at the source",
    ),
    "needs_review": R(
        "the annotator's passes disagree about the steps",
        "look at the episode and correct its segments",
    ),
    "transfer_no_fit": R(
        "the run resembles none of the references of its task: motion labels it (or the source's steps do)",
        "if it does the same as a reference, correct its steps, which makes it one, too",
    ),
    # People
    "correction_outdated": R(
        "a person's correction is not used: the episode has changed since, or the spans do not fit the episode",
        "look at it in the explorer's review queue: accept it for the new contents, or reject it",
    ),
    "label_rejected": R(
        "a person rejected an annotator's label of the episode; the label is not used",
        "correct the segments, or take the rejection back",
    ),
}


def reason_of(code: str) -> Reason:
    """What a code says, also one of an earlier version."""
    return REASONS[FORMER_REASONS.get(code, code)]


# What one source may take of memory and time. A small file can claim anything: a million rows of one repeated text, a
# picture of any size, a video shown a million times over. So the claim is looked at before what it claims is read, and
# a claim beyond its limit is a finding (`over_limit`) with the figure. A registry entry may raise or lower each


def _limit(default: float, description: str, **bounds: float) -> Any:
    return Field(default=default, description=description, **(bounds or {"ge": 1}))  # pyright: ignore


class Limits(BaseModel, extra="forbid", frozen=True):
    """Limits for the files of a dataset. A file beyond a limit is not read; a finding gives its figure."""

    max_pixels: int = _limit(1 << 25, "pixels of one picture, in a video or not: 8K")
    max_fps: float = _limit(1000.0, "frames a second that an episode claims", gt=0)
    max_frames: int = _limit(1 << 23, "frames of one video file")
    max_episodes: int = _limit(
        1 << 19, "episodes of one dataset of LeRobot, in its metadata or its rows"
    )
    max_rows: int = _limit(1 << 20, "rows of one episode (ten hours), or of one table of metadata")
    max_values: int = _limit(1 << 24, "numbers of one column of an episode: rows x dimensions")
    max_bytes: int = _limit(
        1 << 26,
        "bytes in memory of the texts of one table of metadata, or of one page of a host's file list",
    )
    max_text: int = _limit(
        1 << 16, "characters of one text: a task, a name of a step, a camera or a robot"
    )
    max_file_bytes: int = _limit(
        1 << 28, "size of one file of metadata: JSON, JSON lines, CSV, texts"
    )
    max_chunk_bytes: int = _limit(
        1 << 26,
        "bytes of what is read at once: an unpacked chunk of HDF5 or Zarr, an encoded picture",
    )
    max_files: int = _limit(1 << 21, "files of a remote source, or of one tar")
    max_pages: int = _limit(20_000, "folders of a web server")
    max_header_bytes: int = _limit(
        1 << 20, "bytes of one description (`.zarray`, `.zattrs`) in a Zarr store"
    )
    max_unpacked_bytes: int = _limit(
        16 << 30,
        "bytes of unpacked members of tars that are kept; the least recently used are deleted first",
    )
    max_features: int = _limit(
        10_000,
        "parts with a name each: features of an RLDS record, objects of an HDF5 file, arrays of a Zarr group or a "
        "`.npz` file, topics, types and joints of an MCAP recording",
    )
    max_memory_bytes: int = _limit(
        4 << 30, "memory that reading an episode takes beside the program's own", ge=1 << 26
    )
    max_cpu_s: float = _limit(
        60.0,
        "seconds of CPU for a list of episodes, one's rows, or one's pictures of a camera",
        gt=0,
    )
    max_cpu_s_per_mb: float = _limit(300.0, "further seconds for each MB of what is read", ge=0)

    def excess(self, name: str, claimed: float, description: str, times: int = 1) -> str:
        """Why `claimed` is more than the limit `name` (or so many times it) allows of `description`; "" where it is
        not.

        Example: LIMITS.excess("max_rows", 1 << 21, "a.parquet: rows").
        """
        limit = getattr(self, name) * times
        if claimed <= limit:
            return ""
        rule = f"limits.{name}" if times == 1 else f"{times} x limits.{name}"
        return f"{description}: {claimed:,.0f}, over the limit of {limit:,} ({rule} of the registry entry)"

    def check(self, name: str, claimed: float, description: str, times: int = 1) -> None:
        """Raises DataError, as a finding `over_limit`, for what `excess` says."""
        if problem := self.excess(name, claimed, description, times):
            raise DataError(problem, "over_limit")

    def cpu_s(self, num_bytes: int) -> float:
        """Seconds of CPU that work on so many bytes may take."""
        return self.max_cpu_s + self.max_cpu_s_per_mb * num_bytes / 1e6


LIMITS = Limits()
