"""The tables of what people say of labels, of how runs ended, and of which runs show others what to do."""

import pyarrow as pa

from core.tables.definition import BOOL, DATASET, EPISODE, F64, I64, STR, TIME, C, Table

CORRECTION_TABLES = (
    Table(
        "corrections",
        "Corrections of labels by people; rows are only ever added. The view current_corrections has those in force",
        ("correction_id",),
        (
            C("correction_id", STR, "16 hex of sha256 over all columns but created_at"),
            DATASET,
            EPISODE,
            C("base_label_run", STR, "label run that was corrected or rejected"),
            C("base_content_hash", STR, "content_hash of the episode at the time of the correction"),
            C("follows", STR, "correction_id of the episode's previous newest row; null: there was none"),
            C(
                "rejects",
                STR,
                "status rejected: the correction that is taken back; null: the label of base_label_run is rejected",
            ),
            C("author", STR, "person who said so"),
            C("created_at", TIME, "time when it was saved", digest=False),
            C("status", STR, "accepted, review (a person must look) or rejected"),
            C("plan", pa.list_(STR), "names of all planned steps in order, also of those never attempted"),
            C("segments", STR, "all segments of the corrected label as JSON; null: rejected"),
            C("comment", STR, "reason, in the author's words"),
            C("final_progress", F64, "progress at the end of the run, 0..1; null: it follows from the segments"),
            C("catastrophic_frame", I64, "first frame from which the task cannot be saved; null: none"),
        ),
    ),
    Table(
        "outcomes",
        "Outcomes of runs that people stated; rows are only ever added. The view current_outcomes has those in force",
        ("import_id", "episode_index"),
        (
            C("import_id", STR, "16 hex of sha256 over the rows saved together and their predecessors"),
            DATASET,
            EPISODE,
            C("success", BOOL, "true: the run succeeded; null: the row takes an import back"),
            C("note", STR, "reason, in the author's words; null: none given"),
            C("author", STR, "person who said so"),
            C("file", STR, "name of the imported file; null: the row takes an import back"),
            C("undoes", STR, "import that is taken back; null: the row states an outcome"),
            C("created_at", TIME, "time of the import", digest=False),
        ),
        must=("(success IS NULL) = (undoes IS NOT NULL)",),
    ),
    Table(
        "reference_marks",
        "References that people marked or took away; rows are only ever added. The view current_references has those "
        "in force",
        ("mark_id",),
        (
            C("mark_id", STR, "16 hex of sha256 over the row and the episode's previous mark"),
            DATASET,
            EPISODE,
            C("is_reference", BOOL, "true: the run is a reference for its task; false: it is not"),
            C("label_run", STR, "label run that the person vouches for; null: the run is a reference no more"),
            C("author", STR, "person who said so"),
            C("created_at", TIME, "time when it was said", digest=False),
        ),
        must=("is_reference IS NOT NULL",),
    ),
    Table(
        "episode_marks",
        "Tags and assignments of episodes; rows are only ever added. The views current_tags and current_assignments "
        "have those in force",
        ("mark_id",),
        (
            C("mark_id", STR, "16 hex of sha256 over all columns but created_at"),
            DATASET,
            EPISODE,
            C("kind", STR, "tag or assigned"),
            C("value", STR, "the tag, or the person assigned"),
            C("is_on", BOOL, "true: the tag or assignment is set; false: it is removed"),
            C("follows", STR, "mark_id of the previous row of the same tag, or of the previous assignment; null: none"),
            C("author", STR, "person who said so"),
            C("created_at", TIME, "time when it was said", digest=False),
        ),
        must=("is_on IS NOT NULL", "kind IN ('tag', 'assigned')"),
    ),
    Table(
        "joined_tasks",
        "Task texts that people say mean the same task; rows are only ever added. The newest row of each text counts "
        "(view current_joined_tasks)",
        ("join_id", "task"),
        (
            C("join_id", STR, "16 hex of sha256 over the rows saved together and their predecessors"),
            DATASET,
            C("task", STR, "a task text, as in episode_facts.task"),
            C(
                "same_as",
                STR,
                "the text that stands for all texts of the same task; the same text: it is a task of its own again",
            ),
            C("author", STR, "person who said so"),
            C("created_at", TIME, "time when it was said", digest=False),
        ),
        must=("task IS NOT NULL", "same_as IS NOT NULL"),
    ),
)
