"""Tables of the training data: splits, samples and the shards that hold them."""

import pyarrow as pa

from core.tables.definition import BOOL, BY_CHUNK, CHUNK, DATASET, EPISODE, F32, I16, I32, I64, LABEL_RUN, STR, C, Table

SPLITS = ("train", "val", "test_id", "test_task", "test_ood")
SPLIT_MUST = f"split IN {SPLITS}"

PICTURE = pa.struct([("episode_index", I64), ("camera", STR), ("frame_index", I64), ("edit", STR)])

SAMPLE_TABLES = (
    Table(
        "splits",
        "The split of each episode; decided per group, never changed. Episodes unusable by their metadata have none",
        ("dataset", "episode_index"),
        (
            DATASET,
            EPISODE,
            CHUNK,
            C("split", STR, "train, val, test_id, test_task or test_ood"),
            C("group", STR, "group of the episode; all episodes of a group are in one split"),
        ),
        partition=BY_CHUNK,
        must=(SPLIT_MUST,),
    ),
    Table(
        "other_tasks",
        "Runs of other tasks in other chunks that the samples of a chunk may show; chosen from metadata at listing",
        ("dataset", "chunk", "episode_index"),
        (
            DATASET,
            C("chunk", I32, "chunk whose samples may show the run"),
            C("split", STR, "split of the run and of the samples that may show it"),
            C("episode_index", I64, "episode of the run, which is in another chunk"),
        ),
        partition=BY_CHUNK,
        must=(SPLIT_MUST,),
    ),
    Table(
        "samples",
        "One row per sample: a question with pictures and its answer",
        ("sample_id",),
        (
            C("sample_id", STR, "16 hex of sha256(dataset, episode, label run, family, pictures, question, answer)"),
            C("family", STR, "procvqa_a, _b, _c, progresslm_text, _visual, _cross_view or _unanswerable"),
            C("variant", STR, "kind of question within the family"),
            C("form", STR, "ProgressLM: think or no_think"),
            DATASET,
            EPISODE,
            CHUNK,
            C("split", STR, "split of its episode"),
            LABEL_RUN,
            C("camera", STR, "camera of the last picture"),
            C("frames", pa.list_(I64), "frame indices shown, in order; the last is the current one"),
            C(
                "pictures",
                pa.list_(PICTURE),
                "the picture behind each <image> of the question; some are of other episodes",
            ),
            C("question", STR, "text of the question, with one <image> per picture"),
            C("answer", STR, "answer that a model should give"),
            C("progress", F32, "progress label at the last frame; null: the answer states none"),
            C("reference", I16, "item of the demonstration that is closest to the last picture, from 1"),
            C("state", STR, "state at the last frame: ongoing, finished, failed, regressed or stalled"),
            C(
                "reason",
                STR,
                "why there is no answer: other_task, other_camera, not_shown, occluded or edited; null: there is one",
            ),
            C("edit_instruction", STR, "instruction to the image editor; null: no edit"),
            C(
                "names_steps",
                BOOL,
                "true: question or answer contains names of steps; null: not recorded (an older sample)",
            ),
            C("num_tokens", I32, "estimated tokens: one per 32x32 px patch and per 4 characters"),
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
        "The shard and the position of each sample",
        ("sample_id", "shard"),
        (
            C("sample_id", STR, "see samples"),
            C("shard", STR, "file name, see shards"),
            DATASET,
            CHUNK,
            C("offset", I64, "byte in the tar at which the entry of the sample's episode begins"),
        ),
        partition=BY_CHUNK,
        must=('"offset" >= 0',),
    ),
    Table(
        "shards",
        "One row per shard: a WebDataset tar under shards/<split>/",
        ("shard",),
        (
            C("shard", STR, "<dataset>-<chunk>-<split>-<hash12>.tar"),
            C("split", STR, "split of all its samples"),
            DATASET,
            CHUNK,
            C("episodes", I32, "number of entries (episodes) in the tar"),
            C("samples", I32, "number of samples in the tar"),
            C("bytes", I64, "size of the tar"),
            C("sha256", STR, "SHA-256 of the tar"),
            C("store", STR, "address that holds <split>/<shard>; null: the workspace's shards/", digest=False),
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
)
