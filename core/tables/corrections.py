"""The tables of what people say of labels, and of how runs ended."""

import pyarrow as pa

from core.tables.definition import BOOL, DATASET, EPISODE, STR, TIME, C, Table

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
)
