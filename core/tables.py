"""The schema of a corpus: every table and view of the lake, in one place. Imports nothing of ours.

Indices: `episode_index` counts episodes of one dataset, `frame_index` counts frames of one episode from 0,
`chunk` = episode_index // chunk_size. Spans are half-open: `end_frame` is the first frame after the segment.
Content tables are equal for equal inputs, configuration and seed; event tables carry times and run ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

STR, I64, I32, I16, F32, F64, BOOL = (
    pa.string(),
    pa.int64(),
    pa.int32(),
    pa.int16(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
)
TIME = pa.timestamp("us", tz="UTC")
SPLITS = ("train", "val", "test_id", "test_task", "test_ood")
SPLIT_MUST = f"split IN {SPLITS}"

CAMERA_VIDEO = pa.struct([("camera", STR), ("uri", STR), ("start_frame", I64)])
PICTURE = pa.struct([("episode_index", I64), ("camera", STR), ("frame_index", I64), ("edit", STR)])
NATIVE_STEP = pa.struct([("name", STR), ("start_frame", I64), ("end_frame", I64)])


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    comment: str
    digest: bool = True  # False for a place or a time: the same data elsewhere, or later, is the same corpus


@dataclass(frozen=True)
class Table:
    """One lake table. `key` is unique (checked at each publish: the lake has no constraints of its own).

    `must`: SQL conditions that no row breaks; one that is null (of a value that is not known) is not broken.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    content: bool = True
    partition: tuple[str, ...] = ()
    must: tuple[str, ...] = ()
    schema: pa.Schema = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        missing = [k for k in (*self.key, *self.partition) if k not in names]
        if missing or len(set(names)) != len(names):
            raise ValueError(f"table {self.name}: key or partition columns {missing} missing, or a name twice")
        object.__setattr__(self, "schema", pa.schema([(c.name, c.type) for c in self.columns]))

    def rows(self, rows: list[dict]) -> pa.Table:
        """An Arrow table of this schema; a row lacking a column gets null, an unknown column is an error."""
        unknown = {k for r in rows for k in r} - set(self.schema.names)
        if unknown:
            raise ValueError(f"table {self.name} has no column {sorted(unknown)}")
        return pa.Table.from_pylist(rows, schema=self.schema)

    def empty(self) -> pa.Table:
        return self.schema.empty_table()


C = Column
DATASET = C("dataset", STR, "dataset name")
EPISODE = C("episode_index", I64, "episode of the dataset, from 0")
CHUNK = C("chunk", I32, "episode_index // chunk_size")
CAMERA = C("camera", STR, "camera key as in the source")
FRAME = C("frame_index", I64, "frame of the episode, from 0")
LABEL_RUN = C("label_run", STR, "who made the label: see label_runs")

BY_CHUNK = ("dataset", "chunk")

CONTENT_TABLES = (
    Table(
        "datasets",
        "One row per dataset",
        ("dataset",),
        (
            DATASET,
            C("title", STR, "human name"),
            C("robot", STR, "robot type"),
            C("format", STR, "source format as found on disk"),
            C("fps", F64, "frames per second, nominal"),
            C("license", STR, "licence of the data; null: not stated"),
            C("source_uri", STR, "where the data was read from", digest=False),
            C("source_revision", STR, "pinned revision of the source; null for a plain folder"),
            C("chunk_size", I32, "episodes per chunk; never changes"),
            C("role", STR, "train, or ood: held out whole"),
            C("cameras", pa.list_(STR), "cameras by preference for labelling"),
            C("notes", STR, "what a user should know"),
        ),
    ),
    Table(
        "episode_facts",
        "What listing a source says of each episode (metadata only); read it through the view episodes",
        ("dataset", "episode_index"),
        (
            DATASET,
            EPISODE,
            CHUNK,
            C("source_id", STR, "record or path in the source; what an episode is known by"),
            C("task", STR, "instruction; null when the source has none"),
            C("tasks", pa.list_(STR), "all task texts of the episode"),
            C("num_rows", I64, "rows of low-dimensional data; null when there are none"),
            C("fps", F64, "frames per second as stated; the view episodes has the measured rate"),
            C("cameras", pa.list_(STR), "cameras with a video file, by preference"),
            C("data_uri", STR, "file with the rows, relative to the source"),
            C("data_key", STR, "where in data_uri the episode is: a group or a byte offset; empty: all of it"),
            C("row_start", I64, "first row of the episode in data_uri"),
            C(
                "videos",
                pa.list_(CAMERA_VIDEO),
                "file with the pictures of each camera, and the first frame in it",
            ),
            C("steps", pa.list_(NATIVE_STEP), "subtask spans that the source itself gives, half-open"),
            C("success", BOOL, "did the run succeed, by the source; null when it does not say"),
            C("group", STR, "recording session or start state: one group stays in one split"),
            C("source_stamp", STR, "sizes and row counts of the episode's files, hashed"),
        ),
        partition=BY_CHUNK,
        must=(
            "episode_index >= 0",
            "num_rows >= 0",
            "fps > 0",
        ),
    ),
    Table(
        "episode_content",
        "What decoding each episode showed; read it through the view episodes",
        ("dataset", "episode_index"),
        (
            DATASET,
            EPISODE,
            CHUNK,
            C("num_frames", I64, "frames of every usable camera = rows of data, where the source has rows"),
            C("fps", F64, "frames per second by the rows' times, else as stated; everything later counts by it"),
            C("max_drift_s", F64, "largest distance of a row's time from frame_index / fps; null without times"),
            C("usable_cameras", pa.list_(STR), "cameras that decode in full and show something, by preference"),
            C("content_hash", STR, "sha256 over rows and pictures (area-averaged luma)"),
        ),
        partition=BY_CHUNK,
        must=(
            "num_frames > 0",
            "fps > 0",
        ),
    ),
    Table(
        "findings",
        "What is wrong with the data: every dropped or doubtful thing with a reason",
        ("dataset", "episode_index", "camera", "stage", "reason"),
        (
            DATASET,
            C("episode_index", I64, "null: the whole dataset"),
            C("chunk", I32, "null: the whole dataset"),
            C("camera", STR, "null: the whole episode"),
            C("stage", STR, "which stage found it"),
            C("reason", STR, "reason code"),
            C("detail", STR, "what was found, in a sentence"),
            C("file", STR, "file concerned, relative to the source"),
            C("severity", STR, "unusable or warning"),
        ),
        partition=("dataset",),
        must=(
            "severity IN ('unusable', 'warning')",
            "reason IS NOT NULL",
        ),
    ),
    Table(
        "frames",
        "Measurements per frame and camera that need no label",
        ("dataset", "episode_index", "camera", "frame_index"),
        (
            DATASET,
            EPISODE,
            C("camera", STR, "camera key as in the source"),
            FRAME,
            CHUNK,
            C("timestamp_s", F64, "frame_index / fps"),
            C("visual_change", F32, "mean |luma difference| to the frame before on a 64x64 grid, 0..1; 0 at frame 0"),
            C("phash", pa.uint64(), "64-bit perceptual hash (fast; the published one on request)"),
            C("gripper", F32, "gripper opening scaled to 0..1 in the episode; null without gripper"),
            C("speed", F32, "root mean square joint or hand speed, in episode standard deviations per second"),
            C("luma_mean", F32, "mean luma, 0..1"),
            C("is_black", BOOL, "no pixel of the grid brighter than 4 %"),
        ),
        partition=BY_CHUNK,
        must=(
            "frame_index >= 0",
            "timestamp_s >= 0",
            "visual_change BETWEEN 0 AND 1",
            "gripper BETWEEN 0 AND 1",
            "speed >= 0",
            "luma_mean BETWEEN 0 AND 1",
        ),
    ),
    Table(
        "states",
        "Proprioception per frame, where the source has it",
        ("dataset", "episode_index", "frame_index"),
        (
            DATASET,
            EPISODE,
            FRAME,
            CHUNK,
            C("state", pa.list_(F32), "joints or hand pose as in the source, without the gripper"),
        ),
        partition=BY_CHUNK,
    ),
    Table(
        "keyframes",
        "JPEG pictures that annotators see, stored under keyframes/ by their sha256",
        ("dataset", "episode_index", "camera", "frame_index", "label_run"),
        (
            DATASET,
            EPISODE,
            CAMERA,
            FRAME,
            CHUNK,
            C("sha256", STR, "of the JPEG bytes"),
            C("width_px", I32, "of the stored picture"),
            C("height_px", I32, "of the stored picture"),
            C("purpose", STR, "coarse, or boundary"),
            C("label_run", STR, "empty: for every annotator; else the one that asked for the frame"),
        ),
        partition=BY_CHUNK,
        must=(
            "frame_index >= 0",
            "length(sha256) = 64",
            "width_px > 0",
            "height_px > 0",
            "purpose IN ('coarse', 'boundary')",
        ),
    ),
    Table(
        "segments",
        "Subtask spans of an episode by one label run; they tile the episode",
        ("dataset", "episode_index", "label_run", "segment_index"),
        (
            DATASET,
            EPISODE,
            LABEL_RUN,
            C("segment_index", I32, "order in time, from 0"),
            CHUNK,
            C("name", STR, "the step in words"),
            C("start_frame", I64, "first frame"),
            C("end_frame", I64, "first frame after the segment"),
            C("completed", BOOL, "was the step complete at its end"),
            C("kind", STR, "step, idle or done"),
            C("step", I16, "which planned step this is an attempt at, from 0; null unless kind is step"),
            C("num_planned", I16, "steps that the whole task needs, done or not"),
            C("confidence", F32, "0..1 as the annotator judges itself"),
            C("notes", STR, "what the annotator remarked"),
        ),
        partition=BY_CHUNK,
        must=(
            "start_frame >= 0",
            "end_frame > start_frame",
            "kind IN ('step', 'idle', 'done')",
            "(kind = 'step') = (step IS NOT NULL)",
            "step BETWEEN 0 AND num_planned - 1",
            "confidence BETWEEN 0 AND 1",
            "name IS NOT NULL",
        ),
    ),
    Table(
        "episode_labels",
        "What one label run says of an episode as a whole",
        ("dataset", "episode_index", "label_run"),
        (
            DATASET,
            EPISODE,
            LABEL_RUN,
            CHUNK,
            C("plan", pa.list_(STR), "names of the planned steps"),
            C("task", STR, "the instruction as the annotator took it"),
            C("task_inferred", BOOL, "the annotator made the instruction up from the pictures"),
            C("needs_review", BOOL, "the annotator could not make up its mind: a person should look"),
            C("confidence", F32, "mean over the segments, by their length; 0..1; null where the annotator has none"),
            C("as_far_as_episode", I64, "a failed run came as far as this successful one of its task; null: unknown"),
            C("as_far_as_frame", I64, "was at this frame"),
            C("notes", pa.list_(STR), "what the annotator noticed"),
            C("correction_id", STR, "the correction that the label is made of; null: an annotator's own"),
        ),
        partition=BY_CHUNK,
        must=(
            "confidence BETWEEN 0 AND 1",
            "(as_far_as_episode IS NULL) = (as_far_as_frame IS NULL)",
        ),
    ),
    Table(
        "progress",
        "The dense label: task progress per frame by one label run",
        ("dataset", "episode_index", "label_run", "frame_index"),
        (
            DATASET,
            EPISODE,
            LABEL_RUN,
            FRAME,
            CHUNK,
            C("segment_index", I32, "segment that holds the frame"),
            C("progress", F32, "0 at the start, 1 exactly when the task is finished"),
            C("progress_procvlm", F32, "the published ProcVLM formula on the same segments"),
        ),
        partition=BY_CHUNK,
        must=(
            "frame_index >= 0",
            "progress IS NOT NULL",
            "progress BETWEEN 0 AND 1",
            "progress_procvlm BETWEEN 0 AND 1",
        ),
    ),
    Table(
        "reasoning",
        "Step reasoning in words per frame",
        ("dataset", "episode_index", "label_run", "frame_index"),
        (
            DATASET,
            EPISODE,
            LABEL_RUN,
            FRAME,
            CHUNK,
            C("text", STR, "three sentences at most"),
            C("finished", BOOL, "all planned steps are complete by then"),
        ),
        partition=BY_CHUNK,
        must=("text IS NOT NULL",),
    ),
    Table(
        "label_quality",
        "Signs that a label may be wrong, among the runs of a task in a chunk; null where there are fewer than five",
        ("dataset", "episode_index", "label_run"),
        (
            DATASET,
            EPISODE,
            LABEL_RUN,
            CHUNK,
            C("length_z", F64, "robust standard deviations of the log duration from the task's median"),
            C("order_rarity", F64, "share of the task's runs whose steps follow each other otherwise"),
            C("jump", F64, "largest change of progress within half a second"),
            C("falls", I64, "frames at which progress is lower than at the one before, by more than 0.01"),
            C("worst_fall", F64, "largest fall of progress from one frame to the next; 0: it never falls"),
            C("end_progress", F64, "at the last frame"),
            C("contradicts", BOOL, "the source calls it a success and the label ends below 1, or the other way round"),
        ),
        partition=BY_CHUNK,
        must=(
            "order_rarity BETWEEN 0 AND 1",
            "jump BETWEEN 0 AND 1",
            "falls >= 0",
            "worst_fall BETWEEN 0 AND 1",
            "end_progress BETWEEN 0 AND 1",
        ),
    ),
    Table(
        "label_disagreement",
        "How far labels of an episode by two annotators or models are apart; stored with the run that was built later",
        ("dataset", "episode_index", "label_run", "other_run"),
        (
            DATASET,
            EPISODE,
            LABEL_RUN,
            C("other_run", STR, "the run it is compared with"),
            CHUNK,
            C("mean_difference", F64, "mean |difference of progress| over the frames"),
        ),
        partition=BY_CHUNK,
        content=False,
        must=(
            "mean_difference BETWEEN 0 AND 1",
            "other_run <> label_run",
        ),
    ),
    Table(
        "active_runs",
        "Which label of an episode counts, and why",
        ("dataset", "episode_index"),
        (DATASET, EPISODE, CHUNK, LABEL_RUN, C("why", STR, "the rule that chose it")),
        partition=BY_CHUNK,
        must=("label_run IS NOT NULL",),
    ),
    Table(
        "splits",
        "Which split an episode belongs to; decided per group, sticky",
        ("dataset", "episode_index"),
        (
            DATASET,
            EPISODE,
            CHUNK,
            C("split", STR, "train, val, test_id, test_task or test_ood"),
            C("group", STR, "episodes of one group share a split"),
        ),
        partition=BY_CHUNK,
        must=(SPLIT_MUST,),
    ),
    Table(
        "samples",
        "Question-answer samples",
        ("sample_id",),
        (
            C("sample_id", STR, "16 hex of sha256(dataset, episode, label run, family, pictures, question, answer)"),
            C("family", STR, "procvqa_a, _b, _c, progresslm_text, _visual, _cross_view or _unanswerable"),
            C("variant", STR, "kind of question within the family"),
            C("form", STR, "ProgressLM: think or no_think"),
            DATASET,
            EPISODE,
            CHUNK,
            C("split", STR, "of its episode"),
            LABEL_RUN,
            C("camera", STR, "of the last picture"),
            C("frames", pa.list_(I64), "frame indices shown, in order; the last is the current one"),
            C("pictures", pa.list_(PICTURE), "what each <image> of the question shows, also of other episodes"),
            C("question", STR, "with one <image> per picture"),
            C("answer", STR, "what a model is to reply"),
            C("progress", F32, "the label at the last frame; null where the answer has none"),
            C("reference", I16, "item of the demonstration that is nearest to the last picture, from 1"),
            C("state", STR, "what the last frame shows: ongoing, finished, failed, regressed or stalled"),
            C("reason", STR, "why there is no answer: other_task, occluded or edited; null: there is one"),
            C("edit_instruction", STR, "what an image editor is told; null: no such edit"),
            C("num_tokens", I32, "estimate: 32x32 px patches + 4 characters a token"),
        ),
        partition=BY_CHUNK,
        must=(
            SPLIT_MUST,
            "length(sample_id) = 16",
            "len(frames) > 0",
            "progress BETWEEN 0 AND 1",
            "question IS NOT NULL",
            "answer IS NOT NULL",
        ),
    ),
    Table(
        "sample_location",
        "Where a sample lies",
        ("sample_id", "shard"),
        (
            C("sample_id", STR, "see samples"),
            C("shard", STR, "file name, see shards"),
            DATASET,
            CHUNK,
            C("offset", I64, "byte in the tar where the entry of the sample's episode begins"),
        ),
        partition=BY_CHUNK,
        must=('"offset" >= 0',),
    ),
    Table(
        "shards",
        "WebDataset tars under shards/<split>/",
        ("shard",),
        (
            C("shard", STR, "<dataset>-<chunk>-<split>-<hash12>.tar"),
            C("split", STR, "of all its samples"),
            DATASET,
            CHUNK,
            C("episodes", I32, "entries in the tar"),
            C("samples", I32, "samples in it"),
            C("bytes", I64, "size of the tar"),
            C("sha256", STR, "of the tar"),
            C("store", STR, "address below which <split>/<shard> lies; null: the workspace's shards/", digest=False),
        ),
        partition=BY_CHUNK,
        must=(
            SPLIT_MUST,
            "episodes > 0",
            "samples > 0",
            "bytes > 0",
            "length(sha256) = 64",
        ),
    ),
    Table(
        "corrections",
        "What people say of labels, only ever added to; current_corrections has what of it counts",
        ("correction_id",),
        (
            C("correction_id", STR, "16 hex of sha256 over all columns but created_at"),
            DATASET,
            EPISODE,
            C("base_label_run", STR, "the label that was corrected, or rejected"),
            C("base_content_hash", STR, "content of the episode when it was corrected"),
            C("follows", STR, "the episode's newest row when this one was saved; null: it had none"),
            C("rejects", STR, "of status rejected: the row that is taken back; null: the label of base_label_run is"),
            C("author", STR, "who said so"),
            C("created_at", TIME, "when it was saved", digest=False),
            C("status", STR, "accepted, review (a person has to look) or rejected"),
            C("plan", pa.list_(STR), "names of the planned steps, in order, those never attempted, too"),
            C("segments", STR, "the full corrected list, JSON; null when rejected"),
            C("comment", STR, "why, in the author's words"),
        ),
    ),
)

EVENT_TABLES = (
    Table(
        "schema_versions",
        "Versions of this schema that the lake has had, the last of which it follows: see warehouse/lake/migrations.py",
        ("version",),
        (
            C("version", I32, "counted from 1"),
            C("created_at", TIME, "when the lake was made with it, or brought forward to it"),
        ),
        content=False,
    ),
    Table(
        "stage_runs",
        "The last run of each stage on each partition: the truth of what is up to date",
        ("stage", "dataset", "chunk", "label_run"),
        (
            C("stage", STR, "episodes, frames, segments, corrections, progress, samples or shards"),
            DATASET,
            C("chunk", I32, "-1: the whole dataset"),
            C("label_run", STR, "empty where the stage has none"),
            C("input_hash", STR, "upstream output hashes + configuration"),
            C("code_version", STR, "of the stage, raised by hand"),
            C("rows", I64, "rows published"),
            C("output_hash", STR, "over the rows published"),
            C("snapshot", I64, "lake snapshot that holds them"),
            C("cache_hits", I64, "answers taken from the response store"),
            C("duration_s", F64, "how long the stage took"),
            C("finished_at", TIME, "when it was published"),
        ),
        content=False,
    ),
    Table(
        "build_configs",
        "The resolved configuration that a dataset was last built with",
        ("dataset",),
        (
            DATASET,
            C("config_hash", STR, "without places"),
            C("config", STR, "JSON"),
            C("created_at", TIME, "first build with it"),
        ),
        content=False,
    ),
    Table(
        "episode_ids",
        "The index that each episode of a source was ever given; never given to another",
        ("dataset", "episode_index"),
        (DATASET, EPISODE, C("source_id", STR, "record or path in the source")),
        content=False,
    ),
    Table(
        "label_runs",
        "Provenance of labels",
        ("label_run",),
        (
            LABEL_RUN,
            C("annotator", STR, "motion, native, vlm, human or imported"),
            C("model", STR, "name that the server goes by; null without one"),
            C("model_revision", STR, "as the server or the configuration says"),
            C("prompt_version", STR, "hash of the prompt files"),
            C("params", STR, "resolved parameters, JSON"),
            C("code_version", STR, "constant bumped by hand in the annotator"),
            C("created_at", TIME, "first build with it"),
        ),
        content=False,
    ),
    Table(
        "vlm_calls",
        "One row per call really sent",
        ("call_key", "build_id"),
        (
            C("call_key", STR, "sha256 of model, revision, messages with image bytes, parameters"),
            C("build_id", STR, "the build that asked"),
            DATASET,
            EPISODE,
            C("stage", STR, "plan, segment, refine, verify, reason, cot or eval"),
            C("model", STR, "asked for"),
            C("prompt_version", STR, "hash of the stage's prompt"),
            C("num_images", I32, "pictures sent"),
            C("prompt_tokens", I64, "as the server counted"),
            C("completion_tokens", I64, "as the server counted"),
            C("latency_s", F64, "from sending to the whole reply"),
            C("cost_usd", F64, "by the configured prices"),
            C("status", STR, "ok, or what went wrong"),
            C("error", STR, "in words; null when ok"),
            LABEL_RUN,
        ),
        content=False,
    ),
    Table(
        "takedowns",
        "Episodes that must not be used or given on any more",
        ("dataset", "episode_index"),
        (
            DATASET,
            C("episode_index", I64, "null: the whole dataset"),
            C("reason", STR, "why, in words"),
            C("created_at", TIME, "when it was asked for"),
        ),
        content=False,
    ),
    Table(
        "releases",
        "Frozen corpora",
        ("name",),
        (
            C("name", STR, "of the release"),
            C("snapshot", I64, "lake snapshot it froze: proccorpus sql --release reads it"),
            C("config_hash", STR, "hash of what it holds"),
            C("created_at", TIME, "when it was frozen"),
        ),
        content=False,
    ),
    Table(
        "release_shards",
        "Shards of a release",
        ("name", "shard"),
        (
            C("name", STR, "release"),
            C("split", STR, "of the shard"),
            C("shard", STR, "file name, see shards"),
            DATASET,
            CHUNK,
            C("episodes", I32, "entries in the tar"),
            C("samples", I32, "samples in it"),
            C("bytes", I64, "size of the tar"),
            C("sha256", STR, "of the tar"),
            C("store", STR, "as in shards"),
        ),
        content=False,
    ),
    Table(
        "training_runs",
        "Training runs",
        ("training_run",),
        (
            C("training_run", STR, "recipe, release and a hash of both"),
            C("recipe", STR, "name of the recipe"),
            C("release", STR, "what it was trained on"),
            C("config_hash", STR, "the release's hash"),
            C("config", STR, "JSON"),
            C("code_version", STR, "of training"),
            C("steps", I64, "optimiser steps"),
            C("final_loss", F64, "at the last step"),
            C("created_at", TIME, "when it ended"),
        ),
        content=False,
    ),
    Table(
        "training_points",
        "Each step of a training run, as it went",
        ("training_run", "step"),
        (
            C("training_run", STR, "see training_runs"),
            C("step", I64, "from 0"),
            C("loss", F64, "what is minimised"),
            C("text", F64, "mean cross entropy of answer tokens; null where it is not trained"),
            C("progress", F64, "mean absolute error of progress; null where it is not trained"),
            C("learning_rate", F64, "the largest of all parts"),
            C("gradient_norm", F64, "before clipping"),
            C("done", F64, "share of the run, 0..1"),
            C("samples", I64, "since the start"),
            C("tokens", I64, "since the start, without padding"),
            C("samples_per_s", F64, "of this step"),
            C("tokens_per_s", F64, "of this step"),
            C("mfu", F64, "share of the devices' arithmetic, by the model's own count; null where it was not counted"),
            C("extra", STR, "JSON: numbers of one kind of training only, such as the reward"),
        ),
        content=False,
    ),
    Table(
        "checkpoints",
        "Checkpoints of training runs",
        ("training_run", "step"),
        (
            C("training_run", STR, "see training_runs"),
            C("step", I64, "optimiser steps done"),
            C("path", STR, "relative to the workspace"),
            C("created_at", TIME, "when it was saved"),
        ),
        content=False,
    ),
    Table(
        "eval_runs",
        "Evaluations",
        ("eval_run",),
        (
            C("eval_run", STR, "hash of model, benchmark, release and code"),
            C("model", STR, "checkpoint, or the name of a baseline"),
            C("benchmark", STR, "what was asked"),
            C("release", STR, "whose episodes were scored"),
            C("config", STR, "JSON"),
            C("code_version", STR, "of evaluation"),
            C("created_at", TIME, "when it ended"),
        ),
        content=False,
    ),
    Table(
        "eval_predictions",
        "One row per scored frame",
        ("eval_run", "dataset", "episode_index", "frame_index"),
        (
            C("eval_run", STR, "see eval_runs"),
            DATASET,
            EPISODE,
            FRAME,
            C("prediction", F32, "0..1; null when the answer could not be read"),
            C("target", F32, "0..1; null of rewards, which are compared with nothing"),
            C("raw", STR, "the answer as given, or why there is none; null for a head"),
            C("question", STR, "of a benchmark: key of its question; frame_index then counts an episode's questions"),
            C("done", F32, "of rewards: probability that the end state is reached, 0..1"),
            C("content_hash", STR, "of rewards: the episode's, when it was scored"),
        ),
        content=False,
    ),
    Table(
        "eval_scores",
        "Scores with intervals",
        ("eval_run", "slice", "metric"),
        (
            C("eval_run", STR, "see eval_runs"),
            C("slice", STR, "all, or a part of the episodes"),
            C("metric", STR, "name of the metric, see docs/evaluation.md"),
            C("value", F64, "mean over episodes"),
            C("low", F64, "lower end of the 95 % bootstrap interval over episodes"),
            C("high", F64, "upper end"),
            C("n", I64, "episodes"),
            C("coverage", F64, "share of answers that could be read"),
        ),
        content=False,
    ),
)

TABLES: dict[str, Table] = {t.name: t for t in (*CONTENT_TABLES, *EVENT_TABLES)}


@dataclass(frozen=True)
class View:
    """One view; `columns` says what its own columns hold, the others are those of the tables it reads."""

    name: str
    comment: str
    sql: str
    columns: Mapping[str, str] = field(default_factory=dict)


VIEWS = (
    View(
        "episodes",
        "One row per episode: facts, decoded content and its worst finding",
        """
        WITH worst AS (
          SELECT dataset, episode_index, min_by(reason, (stage, reason)) AS reason,
                 min_by(detail, (stage, reason)) AS detail
          FROM findings WHERE severity = 'unusable' AND episode_index IS NOT NULL GROUP BY ALL)
        SELECT f.dataset, f.episode_index, f.chunk, f.source_id, f.task, f.tasks,
               coalesce(c.num_frames, f.num_rows) AS num_frames, coalesce(c.fps, f.fps) AS fps,
               coalesce(c.num_frames, f.num_rows) / coalesce(c.fps, f.fps) AS duration_s, c.max_drift_s,
               coalesce(c.usable_cameras, f.cameras) AS cameras, f.data_uri, f.success, f."group",
               CASE WHEN w.reason IS NULL THEN 'ok' ELSE 'quarantined' END AS status,
               w.reason, w.detail, f.source_stamp, c.content_hash
        FROM episode_facts f
        LEFT JOIN episode_content c USING (dataset, episode_index)
        LEFT JOIN worst w USING (dataset, episode_index)""",
        {
            "fps": "frames per second as measured by the rows' times, else as stated",
            "cameras": "that can be used, by preference",
            "duration_s": "num_frames / fps",
            "reason": "why it cannot be used; null when ok",
            "status": "ok or quarantined",
            "detail": "of the reason, in words",
        },
    ),
    View(
        "quarantine",
        "Episodes (or whole datasets) that cannot be used, each with its worst finding",
        """
        SELECT dataset, episode_index, camera, reason, detail, file FROM (
          SELECT *, row_number() OVER (PARTITION BY dataset, episode_index ORDER BY stage, reason, camera) AS nth
          FROM findings WHERE severity = 'unusable') WHERE nth = 1""",
    ),
    View(
        "active_segments",
        "Segments of each episode's active label",
        """
        SELECT s.* FROM segments s JOIN active_runs a
        ON s.dataset = a.dataset AND s.chunk = a.chunk AND s.episode_index = a.episode_index
           AND s.label_run = a.label_run""",
    ),
    View(
        "active_progress",
        "Progress of each episode's active label",
        """
        SELECT p.* FROM progress p JOIN active_runs a
        ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
           AND p.label_run = a.label_run""",
    ),
    View(
        "review_queue",
        "Active labels, no person's, with a reason to look at them, the oddest first",
        """
        WITH apart AS (
          SELECT dataset, episode_index, label_run, max(mean_difference) AS disagreement FROM (
            SELECT dataset, episode_index, label_run, mean_difference FROM label_disagreement
            UNION ALL
            SELECT dataset, episode_index, other_run, mean_difference FROM label_disagreement) GROUP BY ALL),
        quality AS (
          SELECT dataset, episode_index, label_run, unnest([
            {'why': 'label and source contradict each other about success',
             'score': CASE WHEN contradicts THEN 0.9 END},
            {'why': 'odd length', 'score': CASE WHEN abs(length_z) > 3 THEN least(1.0, abs(length_z) / 6) END},
            {'why': 'odd order of steps', 'score': CASE WHEN order_rarity > 0.8 THEN order_rarity ^ 2 END},
            {'why': 'progress jumps', 'score': CASE WHEN jump > 0.5 THEN least(1.0, jump) END}]) AS sign
          FROM label_quality WHERE contradicts OR abs(length_z) > 3 OR order_rarity > 0.8 OR jump > 0.5),
        labels AS (
          SELECT dataset, episode_index, label_run, unnest([
            {'why': 'the annotator asks for a person', 'score': CASE WHEN needs_review THEN 1.0 END},
            {'why': 'the annotator is unsure', 'score': CASE WHEN confidence < 0.35 THEN 1 - confidence END}]) AS sign
          FROM episode_labels WHERE needs_review OR confidence < 0.35),
        apart_signs AS (
          SELECT dataset, episode_index, label_run,
                 {'why': 'labels of two runs disagree', 'score': least(1.0, disagreement * 2.5)} AS sign
          FROM apart WHERE disagreement > 0.1),
        queue AS (
          SELECT dataset, episode_index, label_run, max(sign.score)::DOUBLE AS score,
                 list(sign.why ORDER BY sign.score DESC, sign.why) AS why
          FROM (FROM quality UNION ALL FROM labels UNION ALL FROM apart_signs)
          JOIN active_runs a USING (dataset, episode_index, label_run)
          WHERE sign.score IS NOT NULL AND NOT starts_with(label_run, 'human/') GROUP BY ALL)
        SELECT dataset, episode_index, e.task, e.success, label_run, score, why, l.confidence, l.needs_review,
               q.length_z, q.order_rarity, q.jump, q.end_progress, x.disagreement
        FROM queue
        JOIN episode_facts e USING (dataset, episode_index)
        JOIN episode_labels l USING (dataset, episode_index, label_run)
        JOIN label_quality q USING (dataset, episode_index, label_run)
        LEFT JOIN apart x USING (dataset, episode_index, label_run)
        ORDER BY score DESC, dataset, episode_index""",
        {
            "score": "strength of its strongest reason, 0..1",
            "why": "the reasons, the strongest first",
            "disagreement": "largest mean difference to another run's progress, 0..1",
        },
    ),
    View(
        "current_corrections",
        "Of what people said of each episode, what counts: the label (accepted), what waits for a person (review), and "
        "annotators' labels that must not be used (rejected)",
        """
        WITH stated AS (
          SELECT c.* EXCLUDE (status), (c.episode_index // d.chunk_size)::INTEGER AS chunk,
                 c.base_content_hash IS NOT DISTINCT FROM e.content_hash AS fits,
                 CASE WHEN c.status = 'accepted' AND NOT fits THEN 'review' ELSE c.status END AS status
          FROM corrections c JOIN datasets d USING (dataset) LEFT JOIN episode_content e USING (dataset, episode_index)
          WHERE c.rejects IS NULL AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id)
            AND (c.status <> 'rejected' OR fits))
        SELECT correction_id, dataset, episode_index, chunk, status, base_label_run, base_content_hash, follows,
               author, created_at, plan, segments, comment
        FROM stated
        QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, status,
                                   CASE WHEN status = 'rejected' THEN base_label_run END
                                   ORDER BY created_at DESC, correction_id DESC) = 1
          AND (status <> 'review' OR created_at >= coalesce(max(created_at) FILTER (status = 'accepted') OVER (
               PARTITION BY dataset, episode_index), created_at))""",
        {"status": "accepted, review (its episode has other contents now, or it was imported so) or rejected"},
    ),
    View(
        "pending_corrections",
        "Episodes whose labels and samples do not show yet what people said: the next build takes it in",
        """
        WITH human AS (
          SELECT l.dataset, l.episode_index, l.chunk, l.correction_id
          FROM episode_labels l WHERE l.correction_id IS NOT NULL),
        accepted AS (FROM current_corrections WHERE status = 'accepted')
        SELECT coalesce(c.dataset, h.dataset) AS dataset, coalesce(c.episode_index, h.episode_index) AS episode_index,
               coalesce(c.chunk, h.chunk) AS chunk, CASE WHEN c.correction_id IS NULL THEN 'taken back' ELSE 'corrected'
               END AS what
        FROM accepted c FULL JOIN human h ON c.dataset = h.dataset AND c.episode_index = h.episode_index
        WHERE c.correction_id IS DISTINCT FROM h.correction_id
        UNION ALL
        SELECT c.dataset, c.episode_index, c.chunk, 'rejected' FROM current_corrections c
        JOIN active_runs a ON a.dataset = c.dataset AND a.episode_index = c.episode_index
          AND a.label_run = c.base_label_run
        WHERE c.status = 'rejected'""",
        {"what": "corrected, taken back or rejected"},
    ),
    View(
        "coverage",
        "Per dataset: how much of it is usable and labelled",
        """
        WITH e AS (
          SELECT dataset, count(*) AS episodes, count(*) FILTER (status = 'ok') AS ok,
                 count(*) FILTER (status = 'quarantined') AS quarantined,
                 coalesce(sum(num_frames) FILTER (status = 'ok'), 0)::BIGINT AS frames,
                 coalesce(sum(duration_s) FILTER (status = 'ok'), 0) / 3600 AS hours
          FROM episodes GROUP BY dataset),
        p AS (SELECT dataset, sum(num_frames)::BIGINT AS labelled_frames FROM episodes
              JOIN active_runs USING (dataset, episode_index) WHERE status = 'ok' GROUP BY dataset),
        s AS (SELECT dataset, count(*) AS samples FROM samples GROUP BY dataset),
        h AS (SELECT dataset, count(*) AS shards FROM shards GROUP BY dataset)
        SELECT d.dataset, d.role, coalesce(episodes, 0) AS episodes, coalesce(ok, 0) AS ok,
               coalesce(quarantined, 0) AS quarantined, coalesce(frames, 0) AS frames,
               coalesce(labelled_frames, 0) AS labelled_frames, coalesce(samples, 0) AS samples,
               coalesce(shards, 0) AS shards, coalesce(hours, 0) AS hours
        FROM datasets d LEFT JOIN e USING (dataset) LEFT JOIN p USING (dataset)
        LEFT JOIN s USING (dataset) LEFT JOIN h USING (dataset)""",
        {
            "episodes": "listed",
            "ok": "usable",
            "quarantined": "not usable",
            "frames": "of usable episodes",
            "labelled_frames": "with an active progress label",
            "samples": "made",
            "shards": "written",
            "hours": "of usable episodes",
        },
    ),
    View(
        "cost_by_run",
        "Calls, tokens and money of each label run",
        """
        SELECT label_run, dataset, stage, count(*) AS calls, sum(prompt_tokens) AS prompt_tokens,
               sum(completion_tokens) AS completion_tokens, sum(latency_s) AS latency_s, sum(cost_usd) AS cost_usd
        FROM vlm_calls GROUP BY ALL""",
        {
            "calls": "sent",
            "prompt_tokens": "in all",
            "completion_tokens": "in all",
            "latency_s": "summed over calls",
            "cost_usd": "in all",
        },
    ),
    View(
        "leaderboard",
        "Every evaluated model and baseline with its scores",
        """
        SELECT r.benchmark, r.model, r.release, s.slice, s.metric, s.value, s.low, s.high, s.n, s.coverage,
               r.created_at, r.eval_run
        FROM eval_scores s JOIN eval_runs r USING (eval_run)""",
        {"release": "whose episodes were scored"},
    ),
    View(
        "label_agreement",
        "Mean absolute progress difference of every two label runs of an episode",
        """
        SELECT a.dataset, a.episode_index, a.label_run AS run_a, b.label_run AS run_b,
               avg(abs(a.progress - b.progress)) AS mae
        FROM progress a JOIN progress b
        ON a.dataset = b.dataset AND a.chunk = b.chunk AND a.episode_index = b.episode_index
           AND a.frame_index = b.frame_index AND a.label_run < b.label_run
        GROUP BY ALL""",
        {
            "run_a": "label run, the lesser name",
            "run_b": "label run, the greater name",
            "mae": "mean absolute difference of progress, 0..1",
        },
    ),
)
