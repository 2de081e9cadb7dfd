"""Tables of labels, of the training data made of them, and of what people say of labels, outcomes and references."""

from core.tables.definition import tables

SPLITS = ("train", "val", "test_id", "test_task", "test_ood")

LABEL_TABLES = tables(f"""
segments: Subtask spans of an episode by one label run; they cover the episode without gaps
  key dataset, episode_index, label_run, segment_index
  segment_index i32: order in time, from 0
  chunk
  name str: the step in words, or a placeholder
  start_frame i64: first frame
  end_frame i64: first frame after the segment
  completed bool: true: the step was complete at the segment's end
  kind str: step, idle or done
  step i16: index of the planned step that this segment attempts, from 0; null unless kind is step
  num_planned i16: number of planned steps of the whole task, done or not
  confidence f32: the annotator's own confidence, 0..1; motion: expected share of its ends that are right
  notes str: remarks of the annotator
  named bool: false: the name is a placeholder, because the annotator does not know what the step is
  pace str: a person's judgement of the pace: fast, slow, adjust or mistake; null: none given
  name_confidence f32 since=15: how likely this deed was done, 0..1; null: its name was given
  check start_frame >= 0
  check end_frame > start_frame
  check kind IN ('step', 'idle', 'done')
  check (kind = 'step') = (step IS NOT NULL)
  check step BETWEEN 0 AND num_planned - 1
  check confidence BETWEEN 0 AND 1
  check name_confidence BETWEEN 0 AND 1
  check name IS NOT NULL
  check named IS NOT NULL
  check pace IN ('fast', 'slow', 'adjust', 'mistake')

episode_labels: One row per episode and label run: what the label states about the whole episode
  key dataset, episode_index, label_run; chunk
  plan list[str]: names of the planned steps, or placeholders
  named bool: true: every planned step has a name; false: the label gives progress, but no words
  steps_from str: form of the source's steps that the segments come from; null: they do not come from the source
  task str: the instruction that the annotator used
  task_inferred bool: true: the annotator guessed the instruction from the pictures
  needs_review bool: true: the annotator is undecided, and a person should look
  confidence f32: 0..1; motion: expected share of its boundaries within 0.5 s of a true one; others: mean over the
      segments, weighted by length; null: the annotator states none
  as_far_as_episode i64: failed runs: the successful run of the task that shows how far this one came; null: unknown
  as_far_as_frame i64: failed runs: the frame of that run at which this one ended; null: unknown
  notes list[str]: remarks of the annotator
  curve list[f32]: progress at each frame, as its annotator states it; null: by the segments
  correction_id str: the correction that this label comes from; null: it is an annotator's own
  final_progress f64: final progress stated by a person, 0..1; null: it follows from the segments
  catastrophic_frame i64: first frame from which the task cannot be saved, stated by a person; null: none
  check confidence BETWEEN 0 AND 1
  check named IS NOT NULL
  check final_progress BETWEEN 0 AND 1
  check catastrophic_frame > 0
  check (as_far_as_episode IS NULL) = (as_far_as_frame IS NULL)

progress: The dense label: task progress per frame by one label run
  key dataset, episode_index, label_run, frame_index; chunk
  segment_index i32: segment that holds the frame
  progress f32: 0 at the start, 1 exactly when the task is finished
  progress_procvlm f32: the published ProcVLM formula on the same segments
  check frame_index >= 0
  check progress IS NOT NULL
  check progress BETWEEN 0 AND 1
  check progress = 0 OR frame_index > 0
  check progress_procvlm BETWEEN 0 AND 1

reasoning: Step reasoning in words per frame
  key dataset, episode_index, label_run, frame_index; chunk
  text str: the reasoning, at most three sentences
  finished bool: true: all planned steps are complete at this frame
  check text IS NOT NULL

label_quality: Signs that a label may be wrong, from comparing the runs of a task in a chunk; null: fewer than five
      runs
  key dataset, episode_index, label_run; chunk
  length_z f64: distance of the log duration from the task's median, in robust standard deviations
  order_rarity f64: share of the task's runs that do the steps in another order
  jump f64: largest change of progress within half a second
  falls i64: number of frames at which progress falls by more than 0.01 from the previous frame
  worst_fall f64: largest fall of progress between two frames; 0: it never falls
  end_progress f64: progress at the last frame
  contradicts bool: true: the source says success and the label ends below 1, or the reverse
  shortest_step_s f64: duration of the shortest step, in seconds; null: no step
  end_by str: origin of the outcome: source, person, label (the annotator saw it) or assumed
  p_failure f64: how odd the run's end is, 0..1; no probability on real robots; null: its outcome is known, or there are
      too few runs to compare
  failure_signs list[str]: signs of a failure, the strongest first
  check order_rarity BETWEEN 0 AND 1
  check jump BETWEEN 0 AND 1
  check falls >= 0
  check worst_fall BETWEEN 0 AND 1
  check end_progress BETWEEN 0 AND 1
  check end_by IN ('source', 'person', 'label', 'assumed')
  check p_failure BETWEEN 0 AND 1

alignments: For labels that follow others: the frame of a reference that each compared frame of a run matches
  key dataset, episode_index, label_run, frame_index; chunk
  reference_episode i64: episode of the reference
  reference_frame i64: matched frame of the reference
  distance f32: distance of the two frames; 1 is typical for frames that show the same moment of two runs
  follows bool: false: at this frame the run does something that the reference does not show
  check frame_index >= 0
  check reference_episode <> episode_index
  check reference_frame >= 0
  check distance >= 0
  check follows IS NOT NULL

label_disagreement: Difference between two labels of an episode; stored with the label run that was built later
  event
  key dataset, episode_index, label_run, other_run
  other_run str: label run that it is compared with
  chunk
  mean_difference f64: mean |difference of progress| over the frames
  check mean_difference BETWEEN 0 AND 1
  check other_run <> label_run

active_runs: The active label of each episode, and the rule that chose it
  key dataset, episode_index
  dataset, episode_index, chunk, label_run
  why str: the rule that chose it
  check label_run IS NOT NULL

splits: The split of each episode; decided per group, never changed. Episodes unusable by their metadata have none
  key dataset, episode_index; chunk
  split str: train, val, test_id, test_task or test_ood
  group str: group of the episode; all episodes of a group are in one split
  check split IN {SPLITS}

other_tasks: Runs of other tasks in other chunks that the samples of a chunk may show; chosen from metadata at
      listing
  key dataset, chunk, episode_index
  chunk i32: chunk whose samples may show the run
  split str: split of the run and of the samples that may show it
  episode_index i64: episode of the run, which is in another chunk
  check split IN {SPLITS}

samples: One row per sample: a question with pictures and its answer
  key sample_id
  sample_id str: 16 hex of sha256(dataset, episode, label run, family, pictures, question, answer)
  family str: procvqa_a, _b, _c, progresslm_text, _visual, _cross_view or _unanswerable
  variant str: kind of question within the family
  form str: ProgressLM: think or no_think
  dataset, episode_index, chunk
  split str: split of its episode
  label_run
  camera str: camera of the last picture
  frames list[i64]: frame indices shown, in order; the last is the current one
  pictures list[picture]: the picture behind each <image> of the question; some are of other episodes
  question str: text of the question, with one <image> per picture
  answer str: answer that a model should give
  progress f32: progress label at the last frame; null: the answer states none
  reference i16: item of the demonstration that is closest to the last picture, from 1
  state str: state at the last frame: ongoing, finished, failed, regressed or stalled
  reason str: why there is no answer: other_task, other_camera, not_shown, occluded or edited; null: there is one
  edit_instruction str: instruction to the image editor; null: no edit
  names_steps bool: true: question or answer contains names of steps; null: not recorded (an older sample)
  num_tokens i32: estimated tokens: one per 32x32 px patch and per 4 characters
  check split IN {SPLITS}
  check length(sample_id) = 16
  check len(frames) > 0
  check progress BETWEEN 0 AND 1
  check question IS NOT NULL
  check answer IS NOT NULL

sample_location: The shard and the position of each sample
  key sample_id, shard
  sample_id str: see samples
  shard str: file name, see shards
  dataset, chunk
  offset i64: byte in the tar at which the entry of the sample's episode begins
  check "offset" >= 0

shards: One row per shard: a WebDataset tar under shards/<split>/
  key shard
  shard str: <dataset>-<chunk>-<split>-<hash12>.tar
  split str: split of all its samples
  dataset, chunk
  episodes i32: number of entries (episodes) in the tar
  samples i32: number of samples in the tar
  bytes i64: size of the tar
  sha256 str: SHA-256 of the tar
  store str unhashed: address that holds <split>/<shard>; null: the workspace's shards/
  check split IN {SPLITS}
  check episodes > 0
  check samples > 0
  check bytes > 0
  check length(sha256) = 64
""")
