-- Of a label

-- ALIGNMENT_SQL
SELECT frame_index, reference_episode, reference_frame, follows FROM alignments
WHERE dataset = $1 AND chunk = $2 AND episode_index = $3 AND label_run = $4 ORDER BY frame_index
