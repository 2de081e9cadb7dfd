"""Tables of events: builds and questions to models, training and evaluation, takedowns and frozen releases;
and of what people say, which is no table of the lake, but of a small database beside it (warehouse/lake/words.py)."""

from core.annotators import HUMAN, IMPORTED, NAMES, in_words
from core.tables.definition import tables

EVENT_TABLES = tables(
    f"""
schema_versions: Schema versions that the lake has had; the last one is in force: see warehouse/lake/schema.py
  key version
  version i32: counted from 1
  created_at time: time when the lake was created with this version, or migrated to it
  proccorpus str: version of proccorpus that did so; null: one before 0.2.0

stage_runs: The last run of each stage on each partition; decides what is up to date
  key stage, dataset, chunk, label_run
  stage str: episodes, frames, demonstrations, embeddings, segments, transfer, corrections, progress, reasoning,
      samples or shards
  dataset
  chunk i32: chunk; -1: the whole dataset
  label_run str: label run; empty: the stage has none
  input_hash str: hash over the outputs of earlier stages and the configuration
  code_version str: code version of the stage, raised by hand
  rows i64: number of rows published
  output_hash str: hash over the rows published; for a chunk's listing without its outcomes
  inputs str since=20: names and hashes that input_hash is over, as JSON; a chunk's listing: its fields
  outcomes_hash str: of earlier versions: see inputs
  others_hash str: of earlier versions
  references_hash str: for the stage transfer: hash over the references it used; empty: other stages
  snapshot i64: lake snapshot that holds the published rows
  cache_hits i64: number of answers taken from the response store
  duration_s f64: duration of the stage
  numbers str: the stage's counts for people to read, as JSON; empty: not kept
  finished_at time: time of publication

build_configs: The resolved configuration of each dataset's last build
  key dataset
  config_hash str: hash of the configuration without paths and addresses
  config str: the configuration as JSON
  created_at time: time of the first build with it

recordings: What episodes are known by: all that people say of an episode, and its split, belong to its recording, whose
      number never changes; its name in the source may
  key recording
  recording str: 16 hex, given when the recording was first listed
  dataset, episode_index
  episode_index i64: number of the recording in its dataset, for good; -1: the next listing gives it one
  source_id str: record or path of the recording in the source, or the last one that it had
  stamp str: hash over sizes and versions of its files when it was listed last
  source_stamp str: hash over the sizes of its files alone
  left_at time: time when a listing did not have it any more; null: it is in the source
  group str: its group, see splits
  split str: the split that it was given first; it keeps it, whatever leaves the source meanwhile
  resembles str: another recording that it probably is: one layer agrees, such as the pictures; null: none, or a person
      has decided
  why str: what speaks for it

fingerprints: What recordings that moved, changed or left are told by; of others the table episode_content has it
  key recording
  recording str: see recordings
  version i32: version of how rows and moments are computed; those of two versions are not compared
  num_frames i64: number of frames
  rows_hash str: hash over state and action of all rows; null: there are none, or they do not tell runs apart
  times_hash str: hash over the times of all rows
  row_sketch list[u64]: hashes of single rows, the smallest ones: which part of its rows another run has
  cameras list[str]: cameras that `moments` are of, each with as many
  moments list[u64]: perceptual hashes of pictures at evenly spread moments, camera by camera
  file_hash str: hash over the bytes of a video that holds this run alone; null: it has rows, or shares a file
  content_hashes list[str]: every content_hash that it has had
  pictures list[bytes]: tiny_pictures of its first camera at the moments; of one that left its place and of which people
      said something

recording_changes: What happened to recordings since they were first listed
  key recording, created_at, what
  recording str: see recordings
  dataset
  what str: moved, gone, back, new, changed, probable, copy, same or other (what a person decided)
  former str: another recording, that it resembles, or that was there before; null: none
  found_by str: listing, frames (the pass over rows and pictures) or person
  from_episode i64: its number before
  to_episode i64: its number after
  from_source_id str: its name in the source before
  to_source_id str: its name in the source after
  why str: what it was told by
  author str: the person who decided; null: nobody did
  created_at time: time when it was found, or decided

label_runs: One row per label run: annotator, model, prompts, parameters and code version
  key label_run
  annotator str: {in_words((*NAMES, HUMAN, IMPORTED))}
  model str: name of the model at the server; null: no model
  model_revision str: revision of the model, from the server or the configuration
  prompt_version str: hash of the prompt files
  params str: resolved parameters, JSON
  code_version str: code version of the annotator, raised by hand
  created_at time: time of the first build with it

vlm_calls: One row per request sent to a model; cached answers are not counted
  key call_key, build_id
  call_key str: sha256 of model, revision, messages with image bytes, parameters
  build_id str: build that sent the request
  dataset, episode_index
  stage str: plan, segment, refine, verify, reason, cot or eval
  model str: model that was asked
  prompt_version str: hash of the stage's prompt
  num_images i32: number of pictures sent
  prompt_tokens i64: tokens of the question, counted by the server
  completion_tokens i64: tokens of the answer, counted by the server
  latency_s f64: time from sending the request to the whole reply
  cost_usd f64: cost by the configured prices
  status str: ok, or the kind of error
  error str: error message; null: ok
  label_run

releases: One row per release: a corpus frozen under a name
  key name
  name str: name of the release
  snapshot i64: lake snapshot that it froze; proccorpus sql --release reads it
  config_hash str: hash over its contents
  created_at time: time when it was frozen
  card_sha256 str unhashed since=16: sha256 of its card; null: frozen by an earlier version

deleted_releases: Releases that were deleted: models, scores and papers may name them, so that no other gets their name
  key name
  name str: name of the release
  config_hash str: hash over its contents
  deleted_at time: time when it was deleted

release_shards: Shards of a release
  key name, shard
  name str: name of the release
  split str: split of the shard
  shard str: file name, see shards
  dataset, chunk
  episodes i32: number of entries (episodes) in the tar
  samples i32: number of samples in the tar
  bytes i64: size of the tar
  sha256 str: SHA-256 of the tar
  store str: as in shards

training_runs: One row per training run
  key training_run
  training_run str: recipe, release and a hash of both
  recipe str: name of the recipe
  release str: release it was trained on
  config_hash str: config_hash of the release
  config str: the configuration as JSON
  code_version str: code version of training
  steps i64: number of optimiser steps
  final_loss f64: loss at the last step
  created_at time: time when it ended

training_points: One row per step of a training run: losses, rates and speed
  key training_run, step
  training_run str: see training_runs
  step i64: optimiser step, from 0
  loss f64: total loss, which training minimises
  text f64: mean cross entropy of answer tokens; null: not trained
  progress f64: mean absolute error of progress; null: not trained
  learning_rate f64: largest learning rate of all parameter groups
  gradient_norm f64: norm of the gradient before clipping
  done f64: share of the training run that is done, 0..1
  samples i64: samples since the start
  tokens i64: tokens since the start, without padding
  samples_per_s f64: samples per second in this step
  tokens_per_s f64: tokens per second in this step
  mfu f64: model FLOPs utilisation: share of the devices' peak arithmetic; null: not counted
  extra str: numbers that only one kind of training has, such as the reward, as JSON

checkpoints: Checkpoints of training runs
  key training_run, step
  training_run str: see training_runs
  step i64: number of optimiser steps done
  path str: path relative to the workspace
  created_at time: time when it was saved

eval_runs: One row per evaluation of a model or baseline
  key eval_run
  eval_run str: hash of model, benchmark, release and code
  model str: checkpoint, or the name of a baseline
  benchmark str: name of the benchmark
  release str: release whose episodes were scored
  config str: the configuration as JSON
  code_version str: code version of evaluation
  created_at time: time when it ended

eval_predictions: One row per scored frame
  key eval_run, dataset, episode_index, frame_index
  eval_run str: see eval_runs
  dataset, episode_index, frame_index
  prediction f32: predicted progress, 0..1; null: the answer could not be parsed
  target f32: progress by the label, 0..1; null: rewards, which are compared with nothing
  raw str: text of the answer, or why there is none; null: a head answered
  question str: benchmarks: key of the question; frame_index then counts the questions of an episode
  done f32: rewards: probability that the task is done, 0..1
  content_hash str: rewards: content_hash of the episode when it was scored
  instruction str since=24: rewards: what the model was told to be the task; null: scored before this was kept
  camera str since=25: rewards: the camera whose pictures were scored; null: as above

eval_scores: Scores of evaluations with their confidence intervals
  key eval_run, slice, metric
  eval_run str: see eval_runs
  slice str: all, or the part of the episodes that was scored
  metric str: name of the metric, see docs/evaluation.md
  value f64: mean of the metric over episodes
  low f64: lower end of the 95 % bootstrap interval over episodes
  high f64: upper end of that interval
  n i64: number of episodes
  coverage f64: share of answers that could be parsed
  seen_episodes i64 since=17: number of the scored episodes that the model was trained on, by any release; 0 of
      baselines; null: not known, or the episodes are not of the lake
""",
    content=False,
)


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
      kind: warehouse/lake/statements.py
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
