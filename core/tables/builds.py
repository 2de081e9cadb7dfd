"""Tables about building: versions, what each stage ran last, configurations, label runs, questions to models."""

from core.tables.definition import tables

BUILD_TABLES = tables(
    """
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
  outcomes_hash str: for a chunk's listing: hash over its known outcomes; empty: none
  others_hash str: for a chunk's listing: hash over the runs that other_tasks names; empty: none
  references_hash str: for the stage transfer: hash over the references it used; empty: other stages
  snapshot i64: lake snapshot that holds the published rows
  cache_hits i64: number of answers taken from the response store
  duration_s f64: duration of the stage
  numbers str: the stage's counts for people to read, as JSON; empty: not kept
  finished_at time: time of publication

build_configs: The resolved configuration of each dataset's last build
  key dataset
  dataset
  config_hash str: hash of the configuration without paths and addresses
  config str: the configuration as JSON
  created_at time: time of the first build with it

episode_ids: The index of each episode that a source has ever had; an index is never given to another episode
  key dataset, episode_index
  dataset, episode_index
  source_id str: record or path of the episode in the source

label_runs: One row per label run: annotator, model, prompts, parameters and code version
  key label_run
  label_run
  annotator str: motion, native, vlm, transfer, human or imported
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
""",
    content=False,
)
