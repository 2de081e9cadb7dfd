-- Known oddities that people accepted: the newest word on each check of a run, or of all runs
-- episode_index: null: all runs of the dataset
-- acceptance_id: its statement_id

SELECT dataset, episode_index, subject AS check_name, comment AS why, author, created_at,
       statement_id AS acceptance_id, recording
FROM current_statements WHERE kind = 'acceptance' AND (value->>'is_accepted')::BOOLEAN
