"""The tables of what people say of labels, of how runs ended, and of which runs show others what to do."""

from core.tables.definition import tables

CORRECTION_TABLES = tables("""
corrections: Corrections of labels by people; rows are only ever added. The view current_corrections has those in
      force
  key correction_id
  correction_id str: 16 hex of sha256 over all columns but created_at
  dataset, episode_index
  base_label_run str: label run that was corrected or rejected
  base_content_hash str: content_hash of the episode at the time of the correction
  follows str: correction_id of the episode's previous newest row; null: there was none
  rejects str: status rejected: the correction that is taken back; null: the label of base_label_run is rejected
  author str: person who said so
  created_at time unhashed: time when it was saved
  status str: accepted, review (a person must look) or rejected
  plan list[str]: names of all planned steps in order, also of those never attempted
  segments str: all segments of the corrected label as JSON; null: rejected
  comment str: reason, in the author's words
  final_progress f64: progress at the end of the run, 0..1; null: it follows from the segments
  catastrophic_frame i64: first frame from which the task cannot be saved; null: none

outcomes: Outcomes of runs that people stated; rows are only ever added. The view current_outcomes has those in
      force
  key import_id, episode_index
  import_id str: 16 hex of sha256 over the rows saved together and their predecessors
  dataset, episode_index
  success bool: true: the run succeeded; null: the row takes an import back
  note str: reason, in the author's words; null: none given
  author str: person who said so
  file str: name of the imported file; null: the row takes an import back
  undoes str: import that is taken back; null: the row states an outcome
  created_at time unhashed: time of the import
  check (success IS NULL) = (undoes IS NOT NULL)

reference_marks: References that people marked or took away; rows are only ever added. The view current_references
      has those in force
  key mark_id
  mark_id str: 16 hex of sha256 over the row and the episode's previous mark
  dataset, episode_index
  is_reference bool: true: the run is a reference for its task; false: it is not
  label_run str: label run that the person vouches for; null: the run is a reference no more
  author str: person who said so
  created_at time unhashed: time when it was said
  check is_reference IS NOT NULL

episode_marks: Tags and assignments of episodes; rows are only ever added. The views current_tags and
      current_assignments have those in force
  key mark_id
  mark_id str: 16 hex of sha256 over all columns but created_at
  dataset, episode_index
  kind str: tag or assigned
  value str: the tag, or the person assigned
  is_on bool: true: the tag or assignment is set; false: it is removed
  follows str: mark_id of the previous row of the same tag, or of the previous assignment; null: none
  author str: person who said so
  created_at time unhashed: time when it was said
  check is_on IS NOT NULL
  check kind IN ('tag', 'assigned')

joined_tasks: Task texts that people say mean the same task; rows are only ever added. The newest row of each text
      counts (view current_joined_tasks)
  key join_id, task
  join_id str: 16 hex of sha256 over the rows saved together and their predecessors
  dataset
  task str: a task text, as in episode_facts.task
  same_as str: the text that stands for all texts of the same task; the same text: it is a task of its own again
  author str: person who said so
  created_at time unhashed: time when it was said
  check task IS NOT NULL
  check same_as IS NOT NULL
""")
