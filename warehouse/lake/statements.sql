-- What people said, as far as it can be taken back

-- TO_UNDO_SQL: What can be taken back of a batch, where it is in force or waits for a person
SELECT kind, dataset, episode_index, subject, batch AS undoes FROM (
  FROM located_statements UNION ALL
  SELECT s.* REPLACE (r.dataset AS dataset, r.episode_index AS episode_index)
  FROM statements s JOIN recordings r ON r.resembles = s.recording WHERE r.left_at IS NULL)
WHERE batch IN (SELECT batch FROM statements WHERE ? IN (statement_id, batch))
  AND undoes IS NULL AND kind NOT IN ('renamed', 'build', 'recording')
QUALIFY row_number() OVER (PARTITION BY statement_id ORDER BY dataset, episode_index) = 1
