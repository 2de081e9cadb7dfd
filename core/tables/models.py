"""Tables of training and evaluation, takedowns and frozen releases."""

from core.tables.definition import tables

MODEL_TABLES = tables(
    """
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
""",
    content=False,
)

RELEASE_TABLES = tables(
    """
takedowns: Episodes that must not be used or passed on any more
  key dataset, episode_index
  dataset
  episode_index i64: null: the whole dataset
  reason str: reason in words
  created_at time: time of the request

releases: One row per release: a corpus frozen under a name
  key name
  name str: name of the release
  snapshot i64: lake snapshot that it froze; proccorpus sql --release reads it
  config_hash str: hash over its contents
  created_at time: time when it was frozen

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
""",
    content=False,
)
