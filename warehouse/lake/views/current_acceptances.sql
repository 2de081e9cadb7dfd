-- Known oddities that people accepted: the newest word on each check of a run, or of all runs
-- episode_index: null: all runs of the dataset
-- acceptance_id: its statement_id

WITH said AS (
  SELECT dataset, episode_index, subject AS check_name, comment AS why, author, created_at,
         statement_id AS acceptance_id, recording, (value->>'is_accepted')::BOOLEAN AS is_accepted
  FROM current_statements WHERE kind = 'acceptance'),
-- What was accepted by a code of an earlier version counts for the code that says it now
renamed AS (
  SELECT s.* REPLACE (f.present AS check_name)
  FROM said s JOIN (VALUES ${FORMER_REASONS}) f(former, present) ON s.check_name = f.former
  WHERE s.is_accepted AND NOT EXISTS (
    FROM said n WHERE n.dataset = s.dataset AND n.check_name = f.present
    AND n.episode_index IS NOT DISTINCT FROM s.episode_index)
  QUALIFY row_number() OVER (PARTITION BY s.dataset, s.episode_index, f.present ORDER BY s.created_at DESC) = 1)
SELECT * EXCLUDE (is_accepted) FROM (FROM said WHERE is_accepted UNION ALL FROM renamed)
