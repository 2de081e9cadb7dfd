"""Why a dataset, an episode or a camera cannot be used, or is doubtful: the closed list of reason codes.

docs/quarantine.md is made from it (docs/make_reference.py).
"""

from typing import NamedTuple


class Reason(NamedTuple):
    meaning: str  # to the person who has to act on it
    remedy: str


R = Reason
REASONS = {
    # The dataset
    "no_metadata": R(
        "the dataset's own description is absent, empty, unreadable, or lacks what names its features",
        "fetch the metadata again (LeRobot: meta/info.json; RLDS: features.json and dataset_info.json)",
    ),
    "no_episodes": R(
        "the source was recognised, but it lists no episode",
        "check that the download is complete, and that the folder is the dataset's root",
    ),
    "camera_without_files": R(
        "the camera is declared, but no episode has a file of it",
        "fetch its files, or take the camera out of the metadata; the dataset's `cameras` has the source's names",
    ),
    "path_escape": R(
        "a link, a path template or a name in an archive leads out of the dataset's folder; it was not followed",
        "copy the file into the folder, or mend the path",
    ),
    "bad_name": R(
        "the name of a file or folder is not UTF-8 text, which no table can keep; it is left out",
        "rename it",
    ),
    "index_gap": R(
        "episode indices are missing between the first and the last",
        "nothing to do when episodes were taken out on purpose; else fetch them again",
    ),
    "stray_file": R(
        "a file in the layout's folders that the metadata does not name",
        "remove it, or list its episodes in the metadata",
    ),
    "path_template": R(
        "the metadata's path template leads nowhere; the standard layout or a search was used",
        "mend data_path or video_path in meta/info.json",
    ),
    "human_demonstration": R(
        "a folder shows a person at the task, not a robot; it is left out",
        "nothing to do",
    ),
    # Rows
    "pickled_data": R(
        "a file holds pickled Python objects, which could run code; it is not read",
        "store it anew as a plain array (numpy.save with allow_pickle=False), one row per frame",
    ),
    "no_data": R("there is no table with the episode's rows", "fetch the data file"),
    "unreadable_data": R(
        "a file with rows or metadata cannot be read: truncated, damaged, or not what its name says",
        "fetch it again; a Parquet file that its recorder never closed is lost",
    ),
    "over_limit": R(
        "a file claims more rows, values, pixels, frames or bytes than a dataset may take; it is not read",
        "look at the figure: where the data is meant to be so large, raise that limit in the registry entry (limits)",
    ),
    "rows_not_read": R(
        "files that may hold rows lie beside videos, in no layout that is read: the pictures alone are taken",
        "convert the dataset to a layout of docs/formats.md; nothing to do when the pictures are enough",
    ),
    "lfs_pointer": R("the file is a git-LFS pointer, not the file itself", "run `git lfs pull` in the dataset"),
    "not_in_metadata": R(
        "rows were found of an episode that the metadata does not list",
        "add the episode to the metadata, or remove its rows",
    ),
    "length_differs": R(
        "the metadata gives another length than the rows have; the rows count",
        "write the metadata anew from the rows",
    ),
    "row_order": R("the episode's rows do not stand together in its file", "sort the file by episode and frame"),
    "nan_state": R(
        "state or gripper holds values that are not finite numbers",
        "record the episode again, or mend the values at the source: we do not guess them",
    ),
    "timestamp_drift": R(
        "the rows' times do not follow the frame rate; frames are matched by row number",
        "nothing to do when frames were dropped in recording; the drift is in episodes.max_drift_s",
    ),
    "frame_rate": R(
        "the rows' times give another frame rate than the metadata states; the measured one counts",
        "mend fps in the metadata, or set fps in the registry entry to overrule both",
    ),
    "no_frame_rate": R(
        "the source does not say its frame rate and the registry does not either; a default is used",
        "set fps in the registry entry",
    ),
    "missing_topic": R(
        "a recording lacks a topic that the registry names, or has it once only; the episode is built without",
        "look at what the recorder was told to write; correct `keys` in the registry entry where the name has changed",
    ),
    "unsorted_stamps": R(
        "messages of a topic are not in order of their times: late ones are left out, or the recorder's times are used",
        "nothing to do for a few; else see that one clock stamps the messages",
    ),
    "clock_gap": R(
        "topics of a recording share no time, or one was silent for long: its nearest message is shown meanwhile",
        "look whether the driver stalled; see that all machines have one clock",
    ),
    "cut_off": R(
        "a recording ends without its end mark, as when the recorder was killed; what stands before is used",
        "nothing to do where that is enough; `mcap recover` writes such a file anew",
    ),
    "split_recording": R(
        "a recording goes on in further files; each counts as an episode",
        "join the files (`mcap merge`, `ros2 bag convert`) where one run is split",
    ),
    "bad_episode_ends": R(
        "meta/episode_ends of a Zarr store is missing, or does not rise: nothing says which rows are an episode",
        "write it anew: the row after the last one of each episode, counted from the store's first",
    ),
    "unknown_codec": R(
        "an array is packed in a way that is not read, or by a codec whose package is not installed; it is not used",
        "for Blosc and JPEG XL: `pip install imagecodecs`; else write the array anew, as the detail says",
    ),
    "never_ends": R(
        "no step is marked as the episode's last (RLDS: is_last, is_terminal): it may be cut off",
        "look whether the runs are whole: convert them again, or say their outcomes with `proccorpus outcomes import`",
    ),
    # Grippers and hands
    "no_gripper": R(
        "no gripper and no hand was seen among the dimensions of state and action: labels go by the arm alone",
        "name its dimension in the registry entry (gripper: {column: ..., dimension: ...}), or `column: none`",
    ),
    "gripper_unused": R(
        "the gripper does not move, or only trembles, in all episodes that were looked at",
        "nothing to do when the task needs no gripper; else name another dimension in the registry entry",
    ),
    "polarity_unknown": R(
        "the gripper moves, but nothing shows which end is open: its moves count, closed and open do not",
        "set `closed` and `open` of the gripper in the registry entry: look at one episode's pictures",
    ),
    "hand_without_polarity": R(
        "the hand moves, but nothing shows which end is open: its moves count, closed and open do not",
        "set `closed` and `open` of the hand in the registry entry: look at one episode's pictures",
    ),
    "signal_lag": R(
        "a recorded signal is behind or ahead of the pictures; labels are corrected by it",
        "nothing to do; a recorder that stamps pictures and signals alike needs no correction",
    ),
    # Pictures
    "no_video": R(
        "no camera of the episode has pictures",
        "fetch the videos; a dataset without pictures cannot be labelled",
    ),
    "missing_camera": R("this camera has no pictures for the episode", "fetch its file"),
    "bad_video_pointer": R(
        "the metadata does not say where the episode's video is, or cannot be right about it",
        "write the metadata anew (LeRobot: from_timestamp, chunk_index and file_index of each camera)",
    ),
    "undecodable_video": R("a video or picture cannot be decoded", "fetch it again, or encode it anew"),
    "damaged_frames": R(
        "the decoder found errors in some frames and made up what it could not read",
        "fetch the video again; up to a tenth of the frames is a warning, more makes the camera unusable",
    ),
    "frame_count": R(
        "the camera has more or fewer frames than the episode has rows",
        "cut the video to the rows, or the rows to the video",
    ),
    "black_video": R("every frame is black", "nothing can be labelled from it; use another camera"),
    "frozen_video": R("no frame differs from the first", "nothing can be labelled from it; use another camera"),
    # The episode
    "too_short": R(
        "fewer frames than a label needs",
        "lower min_frames in the build's configuration, if so short an episode means something",
    ),
    "pictures_lost": R(
        "pictures that samples show could be decoded when the episode was measured, and cannot any more; the samples "
        "that show them are in no shard",
        "see that the source is there as it was, and build again",
    ),
    "duplicate_episode": R(
        "the source holds the same episode a second time; the first one counts",
        "nothing to do, or remove the copy",
    ),
    "taken_down": R(
        "the episode was taken down in this corpus",
        "see the reason in the detail; proccorpus takedown --undo takes it back",
    ),
    "known_bad": R("the registry names the episode as broken", "see its reason in the registry entry"),
    "no_task": R("the episode has no instruction", "add it at the source; the episode is built without"),
    "task_from_name": R(
        "the instruction is read from the file's name, as the dataset's own convention has it",
        "nothing to do, or store the instruction in the file",
    ),
    "uninformative_task": R(
        "the instruction says nothing of this episode, by the registry; it is kept in tasks and not used",
        "nothing to do",
    ),
    "bad_steps": R(
        "the source's own subtask spans overlap, run backwards, leave the episode or have no text; they are not used",
        "mend the spans at the source; until then motion labels the episode",
    ),
    "no_steps": R(
        "the annotator is native, but the source gives no usable subtask spans for the episode: motion labels it",
        "nothing to do, or add the spans at the source",
    ),
    "steps_differ": R(
        "the source brings steps of the episode in several forms, which differ; docs/formats.md says which one counts",
        "look at the episode; remove the form that is wrong, or mend it",
    ),
    # The annotator
    "bad_reply": R(
        "the model's replies broke the schema or were cut, in every attempt; the episode has no label",
        "build again with another model, or with more max_attempts; answered questions are not asked again",
    ),
    "refused": R(
        "the model's server refused the question; the episode has no label",
        "see the server's own message in the detail: often too many pictures or tokens for its limits",
    ),
    "task_inferred": R(
        "the source has no instruction; the annotator made one up from the pictures",
        "read it in episode_labels.task, and add an instruction at the source where it is wrong",
    ),
    "needs_review": R(
        "the annotator's passes disagree about the steps",
        "look at the episode and correct its segments",
    ),
    "transfer_no_fit": R(
        "the run is like none of the references of its task: motion labels it (or the source's steps do)",
        "look at it beside a reference; if it does the same, correct its steps, which makes it a reference, too",
    ),
    # People
    "correction_outdated": R(
        "a person's correction is not used: the episode has changed since, or its spans do not fit",
        "look at it in the explorer's review queue: accept it for the new contents, or reject it",
    ),
    "label_rejected": R(
        "a person rejected an annotator's label of the episode; it is not used",
        "correct the segments, or take the rejection back",
    ),
}
