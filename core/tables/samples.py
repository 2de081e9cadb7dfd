"""Tables of the training data: splits, samples and the shards that hold them."""

import pyarrow as pa

from core.tables.definition import BOOL, BY_CHUNK, CHUNK, DATASET, EPISODE, F32, I16, I32, I64, LABEL_RUN, STR, C, Table

SPLITS = ("train", "val", "test_id", "test_task", "test_ood")
SPLIT_MUST = f"split IN {SPLITS}"

PICTURE = pa.struct([("episode_index", I64), ("camera", STR), ("frame_index", I64), ("edit", STR)])

SAMPLE_TABLES = (
    Table(
        "splits",
        "Which split an episode belongs to; decided per group, sticky. None where metadata say that it cannot be used",
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
        "other_tasks",
        "Runs of other tasks, beyond a chunk, that its samples may show; decided from metadata when it is listed",
        ("dataset", "chunk", "episode_index"),
        (
            DATASET,
            C("chunk", I32, "whose samples may show it"),
            C("split", STR, "of the run, and of the samples that may show it"),
            C("episode_index", I64, "of the run, which is in another chunk"),
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
            C(
                "reason",
                STR,
                "why there is no answer: other_task, other_camera, not_shown, occluded or edited; null: there is one",
            ),
            C("edit_instruction", STR, "what an image editor is told; null: no such edit"),
            C("names_steps", BOOL, "does it ask for, show or give names of steps; null: made before that was noted"),
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
)
