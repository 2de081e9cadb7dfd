-- Takedowns that were not taken back: what must not be used or passed on any more. The view current_takedowns has the
--   numbers of now
-- episode_index: number of the episode when it was taken down; null: the whole dataset
-- recording: recording that was taken down; null: the whole dataset
-- reason: reason in words

SELECT dataset, episode_index, recording, comment AS reason, created_at
FROM statements t
WHERE kind = 'takedown' AND undoes IS NULL AND NOT EXISTS (FROM statements u WHERE u.undoes = t.batch)
