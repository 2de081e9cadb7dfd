"""The table of what people say of labels."""

import pyarrow as pa

from core.tables.definition import DATASET, EPISODE, STR, TIME, C, Table

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
)
