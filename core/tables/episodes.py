"""Tables of what is in a source and what decoding it showed: datasets, episodes, findings, measurements, pictures."""

from core.tables.definition import tables

EPISODE_TABLES = tables("""
datasets: One row per dataset
  key dataset
  title str: name for people to read
  robot str: robot type
  format str: source format as found on disk
  fps f64: nominal frames per second
  license str: licence of the data; null: the source states none
  source_uri str unhashed: folder or address that the data was read from
  source_revision str: commit of the hub dataset that was read; null: the source is not on a hub
  chunk_size i32: episodes per chunk; never changes
  role str: train, or ood: the whole dataset is held out
  cameras list[str]: all cameras, the preferred one for labelling first
  views list[str] unhashed: cameras that annotators look at, the main one first; empty: only the first usable camera
  notes str: remarks for users of the data

source_parts: One row per part of a source, such as a column, an array, a topic or a file, and what it is used for
  key dataset, kind, name, status, use
  partition dataset
  kind str: array, camera, column, file, text or topic
  name str: name as in the source, of an episode or of the whole; * stands for numbers that differ
  status str: used; known: understood, and left out on purpose; unknown: used for nothing, a finding
  use str: what it is read as: state, action, time, camera, instruction, outcome, steps, rate, ...; empty: not used
  why str: what shows that it is that, or why it is not used
  shape list[i64]: shape in one episode; null for a dimension that differs between episodes
  dtype str: type of its values; empty: not looked at
  file str: first file that has it, relative to the source
  num_times i64: number of episodes, or files, that have it
  check kind IN ('array', 'camera', 'column', 'file', 'text', 'topic')
  check status IN ('used', 'known', 'unknown')
  check num_times > 0

signals: One row per gripper or hand: which values hold it, and which end of its range is open
  key dataset, signal_index
  signal_index i32: position in frames.grippers, from 0
  arm str: left, right, ...; empty: the robot has only one
  kind str: gripper or hand
  column str: column that holds it: state or action
  dimensions list[i32]: its dimensions in that column; several for fingers or the joints of a hand
  names list[str]: names of the dimensions
  weights list[f64]: weights of the dimensions; the signal is their weighted sum
  unit str: unit of the value, guessed from names and sizes
  closed f64: value of a closed gripper, over the dataset; the low end of the range if the polarity is unknown
  open f64: value of an open gripper; the high end of the range if the polarity is unknown
  polarity str: high_is_open, high_is_closed, or unknown: 0 and 1 are then only the two ends of its range
  polarity_by str: evidence for the polarity
  confidence f64: confidence in the polarity, 0..1
  located_by str: how the dimensions were found: registry, name, modality.json or values
  is_used bool: true: it moves from one end to the other in at least one surveyed episode
  closings_per_episode f64: mean number of closings; half of all moves if the polarity is unknown
  num_surveyed i32: number of surveyed episodes
  survey_version str: version of the survey: its code and the registry entry
  layout str unhashed since=15: hash over the robot, and the names and widths of state and action, that it rests on
  check kind IN ('gripper', 'hand')
  check polarity IN ('high_is_open', 'high_is_closed', 'unknown')
  check confidence BETWEEN 0 AND 1

signal_lags: Delay of recorded signals behind the pictures, per chunk
  key dataset, chunk, signal
  signal str: state, action, or the title of a gripper and its move: closing or opening
  lag_s f64: seconds by which the signal lags behind the pictures; negative: it is ahead
  likeness f64: state, action: correlation at that lag; grippers: how far the peak stands out
  num_observed i32: number of episodes (state, action) or moves (grippers) measured
  is_corrected bool: true: labels use the signal with this lag removed

episode_facts: One row per listed episode, from the source's metadata alone; read it through the view episodes
  key dataset, episode_index; chunk
  source_id str: record or path that identifies the episode in the source
  task str: instruction; null when the source has none
  tasks list[str]: all task texts of the episode
  num_rows i64: number of rows of low-dimensional data; null: there are none
  fps f64: frames per second as the source states; the view episodes has the measured rate
  cameras list[str]: cameras with a video file, by preference
  data_uri str: file with the rows, relative to the source
  data_key str: position of the episode in data_uri: a group or a byte offset; empty: the whole file
  row_start i64: first row of the episode in data_uri
  videos list[camera_video]: for each camera: its video file, and the episode's first frame in that file
  steps list[native_step]: subtask spans from the source; the end frame is exclusive
  steps_from str: field or file form that the steps were read from, such as action_config; null: no steps
  plan list[str]: names of the planned steps; several spans may be attempts at the same one
  as_far_as episode_frame: failed runs: the frame of another run that this one came as far as, by the source; or
      null
  success bool: true: the run succeeded, according to a person, else to the source; null: not known
  success_source str: origin of success, such as 'column next.success' or 'person: FILE'; null: not known
  group str: recording session or start state; all episodes of a group are in one split
  source_stamp str: hash over the sizes and row counts of the episode's files
  source_index i64 unhashed since=20: number of the episode in the source, where that is another one; null: it is equal,
      or the source has none
  check episode_index >= 0
  check num_rows >= 0
  check fps > 0
  check success IS NOT NULL OR success_source IS NULL

episode_content: One row per decoded episode: its length, rate and usable cameras; read it through the view episodes
  key dataset, episode_index; chunk
  num_frames i64: number of frames of each usable camera; equal to the rows of data, if the source has rows
  fps f64: frames per second, measured from the rows' times, else as stated; all later stages use it
  max_drift_s f64: largest difference between a row's time and frame_index / fps; null: the rows have no times
  usable_cameras list[str]: cameras that decode in full and are neither black nor frozen, the preferred one first
  content_hash str: sha256 over text, rows and pictures (area-averaged luma)
  former_hashes list[str] unhashed: content_hash of the same recording as earlier versions computed it, or with other
      cameras or texts, or encoded otherwise
  recording str unhashed since=15: recording that was decoded, see recordings; null: decoded before there were any
  file_stamp str unhashed since=15: hash over sizes and versions of the files that it was decoded from
  fingerprint_version i32 unhashed since=15: as `version` in fingerprints; so are the columns that follow
  rows_hash str unhashed since=15: hash over state and action of all rows
  times_hash str unhashed since=15: hash over the times of all rows
  row_sketch list[u64] unhashed since=15: hashes of single rows, the smallest ones
  moments list[u64] unhashed since=15: perceptual hashes at evenly spread moments, for each usable camera
  file_hash str unhashed since=15: hash over the bytes of a video that holds this run alone
  check num_frames > 0
  check fps > 0

findings: Problems of the data: everything that is left out or doubtful, each with a reason code
  key dataset, episode_index, camera, stage, reason
  partition dataset
  episode_index i64: null: the whole dataset
  chunk i32: null: the whole dataset
  camera str: null: the whole episode
  stage str: stage that found it
  reason str: reason code, see docs/quarantine.md
  detail str: one sentence on the problem
  file str: file concerned, relative to the source
  severity str: unusable or warning
  stretches list[stretch] unhashed since=23: where in the run checks found it, and what they measured, see the view
      run_checks; null: no check of a run's signals did
  check severity IN ('unusable', 'warning')
  check reason IS NOT NULL

frames: Measurements per frame and camera, made without labels
  key dataset, episode_index, camera, frame_index; chunk
  timestamp_s f64: frame_index / fps
  visual_change f32: mean |luma difference| to the previous frame on a 64x64 grid, 0..1; 0 at frame 0
  phash u64: 64-bit perceptual hash; a fast one unless published_phash is set
  gripper f32: opening of the gripper that closes most often, 0 closed to 1 open; null: no gripper
  grippers list[f32]: opening of each gripper or hand, in the order of the table signals; null: not used
  speed f32: root mean square speed of joints or hand, in standard deviations of the episode per second
  luma_mean f32: mean luma, 0..1
  is_black bool: true: no pixel of the grid is brighter than 4 %
  check frame_index >= 0
  check timestamp_s >= 0
  check visual_change BETWEEN 0 AND 1
  check gripper BETWEEN 0 AND 1
  check speed >= 0
  check luma_mean BETWEEN 0 AND 1

tiny_pictures: Tiny grey pictures, at most 5 a second of each usable camera: episodes of a task are compared by them
  key dataset, episode_index, camera, frame_index; chunk
  compact
  luma bytes: 16 x 16 pixels of luma, a byte each, row by row from the top
  check octet_length(luma) = 256

states: Proprioception per frame, if the source has it
  key dataset, episode_index, frame_index; chunk
  state list[f32]: joints or hand pose as in the source, without the gripper

keyframes: JPEG pictures that annotators see, stored under keyframes/ by their sha256
  key dataset, episode_index, camera, frame_index, label_run; chunk
  sha256 str: SHA-256 of the JPEG bytes
  width_px i32: width of the stored picture
  height_px i32: height of the stored picture
  purpose str: coarse: a picture at even intervals; boundary: near a step's end
  label_run str: empty: stored for every annotator; else the label run that asked for the frame
  check frame_index >= 0
  check length(sha256) = 64
  check width_px > 0
  check height_px > 0
  check purpose IN ('coarse', 'boundary')

demonstration_measures: Measurements of how well each run was demonstrated; the view demonstration_quality compares
      them
  key dataset, episode_index; chunk
  duration_s f64: num_frames / fps
  rest_s f64: seconds that the robot stands still: before it starts, on the way and at the end
  pauses i32: number of stand-stills between the first and the last motion
  reversals i32: number of times that the arm turns back; null: no state
  jerk f64: median jerk over median speed while the arm moves, in 1/s²; null: no state
  gripper_moves i32: number of closings and openings; null: no gripper is used
  end_state list[f32]: mean state over the last quarter of a second, in the source's units
  state_spread list[f32]: standard deviation of the state over the run
  camera str: preferred camera, which took the last picture
  end_phash u64: perceptual hash of the last picture
  check duration_s > 0
  check rest_s BETWEEN 0 AND duration_s + 1e-9
  check pauses >= 0
  check reversals >= 0
  check jerk >= 0
  check gripper_moves >= 0
  check len(end_state) = len(state_spread)

embeddings: Embeddings of pictures by a frozen encoder, a few per second; read them through the view
      frame_embeddings
  key dataset, episode_index, camera, frame_index, encoder; chunk
  compact
  encoder str: encoder's name and input size in pixels, such as mobilenet_v2@64; grey needs no weights
  device str: cpu, or the GPU's name; numbers from different devices differ by rounding
  embedding list[f32]: 256 numbers for the whole picture, rounded to float16
  cells list[f32]: 64 numbers for each cell of the grid, row by row, rounded to float16
  check frame_index >= 0
  check len(embedding) = 256
  check len(cells) % 64 = 0
""")
