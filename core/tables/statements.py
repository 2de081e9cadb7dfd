"""What people say, in one table: no table of the lake, but of a small database beside it (warehouse/lake/words.py)."""

from core.tables.definition import tables

(STATEMENTS,) = tables(
    """
statements: What people say of recordings and
      datasets; rows are only ever added. The view
      current_statements has those in force, and
      each kind has views of its own
  key statement_id
  number i64: its number, from 1: a later statement
      has a higher one
  statement_id str: 16 hex of sha256 over what is
      said, and the statement that it follows
  batch str: id that statements of one file or one
      act share; of others their own
  kind str: correction, rejection, recording,
      outcome, reference, tag, assigned, acceptance,
      takedown, joined_task, renamed or build
  dataset
  episode_index i64: number of the episode when it
      was said; null: all of the dataset
  recording str: recording that it is said of, see
      recordings; null: all of the dataset
  source_id str: record or path of the episode in
      the source when it was said
  content_hash str: content_hash of the episode at
      that moment
  subject str: what of it: the tag, the check, the
      task text; null: the kind has one subject
  value str: what is said, as JSON; its fields by
      kind: warehouse/lake/kinds.py
  author str: person who said so; null: not known
  comment str: reason, in the author's words
  follows str: statement_id of the newest statement
      that the author had seen; null: none
  undoes str: batch that is taken back; null:
      nothing is
  created_at time: time of it
""",
    content=False,
)
