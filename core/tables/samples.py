"""Tables of the training data: splits, samples and the shards that hold them."""

from core.tables.definition import tables

SPLITS = ("train", "val", "test_id", "test_task", "test_ood")

SAMPLE_TABLES = tables(f"""
splits: The split of each episode; decided per group, never changed. Episodes unusable by their metadata have none
  key dataset, episode_index
  partition dataset, chunk
  dataset, episode_index, chunk
  split str: train, val, test_id, test_task or test_ood
  group str: group of the episode; all episodes of a group are in one split
  check split IN {SPLITS}

other_tasks: Runs of other tasks in other chunks that the samples of a chunk may show; chosen from metadata at
      listing
  key dataset, chunk, episode_index
  partition dataset, chunk
  dataset
  chunk i32: chunk whose samples may show the run
  split str: split of the run and of the samples that may show it
  episode_index i64: episode of the run, which is in another chunk
  check split IN {SPLITS}

samples: One row per sample: a question with pictures and its answer
  key sample_id
  partition dataset, chunk
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
  partition dataset, chunk
  sample_id str: see samples
  shard str: file name, see shards
  dataset, chunk
  offset i64: byte in the tar at which the entry of the sample's episode begins
  check "offset" >= 0

shards: One row per shard: a WebDataset tar under shards/<split>/
  key shard
  partition dataset, chunk
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
