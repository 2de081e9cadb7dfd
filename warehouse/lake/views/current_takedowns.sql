-- What must not be used or passed on, by the present numbers
-- episode_index: null: the whole dataset
-- recording: the recording that was taken down; null: the whole dataset
-- is_sure: false: the episode is probably that recording; a person has to decide

SELECT dataset, episode_index, comment AS reason, created_at, recording, true AS is_sure
FROM current_statements WHERE kind = 'takedown'
UNION ALL
SELECT r.dataset, r.episode_index, 'it is probably a recording that was taken down: ' || t.reason,
       t.created_at, t.recording, false
FROM recordings r JOIN (SELECT t.recording, t.reason, t.created_at FROM takedowns t WHERE t.recording IS NOT NULL
  UNION ALL
  SELECT r.recording, t.reason, t.created_at FROM takedowns t JOIN recordings r ON r.dataset = t.dataset
  WHERE t.episode_index IS NULL) t ON t.recording = r.resembles
WHERE r.left_at IS NULL
