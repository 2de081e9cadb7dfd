"""The tables of what people say of labels, of how runs ended, and of which runs show others what to do."""

import pyarrow as pa

from core.tables.definition import BOOL, DATASET, EPISODE, F64, I64, STR, TIME, C, Table

CORRECTION_TABLES = (
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
            C("final_progress", F64, "where the run ended, 0..1; null: as the segments say"),
            C("catastrophic_frame", I64, "first frame at which all is lost; null: none"),
        ),
    ),
    Table(
        "outcomes",
        "What people say of how runs ended, only ever added to; current_outcomes has what of it counts",
        ("import_id", "episode_index"),
        (
            C("import_id", STR, "16 hex of sha256 over the rows that came together, and what came before them"),
            DATASET,
            EPISODE,
            C("success", BOOL, "did the run succeed; null in rows that take others back"),
            C("note", STR, "why, in the author's words; null: nothing said"),
            C("author", STR, "who said so"),
            C("file", STR, "name of the file it came in; null in rows that take others back"),
            C("undoes", STR, "the import that is taken back; null: these rows state outcomes"),
            C("created_at", TIME, "when it was imported", digest=False),
        ),
        must=("(success IS NULL) = (undoes IS NOT NULL)",),
    ),
    Table(
        "reference_marks",
        "What people say of which runs show the others of their task, only ever added to; current_references has what "
        "counts",
        ("mark_id",),
        (
            C("mark_id", STR, "16 hex of sha256 over the row and the mark that the episode had before"),
            DATASET,
            EPISODE,
            C("is_reference", BOOL, "is the run to show others; false: its label counts for itself alone"),
            C("label_run", STR, "the label that was vouched for; null in rows that take the run away"),
            C("author", STR, "who said so"),
            C("created_at", TIME, "when it was said", digest=False),
        ),
        must=("is_reference IS NOT NULL",),
    ),
    Table(
        "episode_marks",
        "Tags that people put on episodes, and to whom they assign them, only ever added to; current_tags and "
        "current_assignments have what counts",
        ("mark_id",),
        (
            C("mark_id", STR, "16 hex of sha256 over all columns but created_at"),
            DATASET,
            EPISODE,
            C("kind", STR, "tag or assigned"),
            C("value", STR, "the tag; of an assignment the person"),
            C("is_on", BOOL, "is it so from now on; false: the tag is taken off, the person has the episode no more"),
            C("follows", STR, "the newest row of the same tag, or the newest assignment, before; null: there was none"),
            C("author", STR, "who said so"),
            C("created_at", TIME, "when it was said", digest=False),
        ),
        must=("is_on IS NOT NULL", "kind IN ('tag', 'assigned')"),
    ),
    Table(
        "joined_tasks",
        "Texts that people say mean the same task, only ever added to; of each text the newest row counts "
        "(current_joined_tasks)",
        ("join_id", "task"),
        (
            C("join_id", STR, "16 hex of sha256 over the rows that came together, and what came before them"),
            DATASET,
            C("task", STR, "a text, as episode_facts.task has it"),
            C("same_as", STR, "the text that stands for all that mean the same; itself: it is a task of its own again"),
            C("author", STR, "who said so"),
            C("created_at", TIME, "when it was said", digest=False),
        ),
        must=("task IS NOT NULL", "same_as IS NOT NULL"),
    ),
)
