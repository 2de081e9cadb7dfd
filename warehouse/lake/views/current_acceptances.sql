-- Known oddities that people accepted: the newest word on each check of a run, or of all runs
-- episode_index: null: all runs of the dataset

SELECT dataset, episode_index, check_name, why, author, created_at, acceptance_id, recording
FROM located_acceptances
QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, check_name
                           ORDER BY created_at DESC, acceptance_id DESC) = 1 AND is_accepted
