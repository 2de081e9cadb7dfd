-- What people said, as far as it can be taken back

-- TO_UNDO_SQL: What can be taken back of some statements or batches, and marks of copies of what was taken down
WITH RECURSIVE named AS (FROM statements WHERE list_has_any([statement_id, batch], $1)),
down AS (
  SELECT r.recording FROM named n JOIN recordings r
  ON r.recording = n.recording OR n.recording IS NULL AND r.dataset = n.dataset
  WHERE n.kind = 'takedown'
  UNION
  SELECT c.recording FROM statements c JOIN down d ON (c.value->>'copy_of') = d.recording),
undone AS (
  FROM statements WHERE batch IN (SELECT batch FROM named) OR (value->>'copy_of') IN (FROM down)
  AND batch NOT IN (SELECT undoes FROM statements WHERE undoes IS NOT NULL))
SELECT kind, coalesce(r.dataset, s.dataset) AS dataset, coalesce(r.episode_index, s.episode_index) AS episode_index,
       subject, batch AS undoes
FROM undone s LEFT JOIN recordings r
ON s.recording IN (r.recording, CASE WHEN r.left_at IS NULL THEN r.resembles END)
WHERE undoes IS NULL AND kind NOT IN ('renamed', 'build', 'recording')
QUALIFY row_number() OVER (
  PARTITION BY statement_id ORDER BY r.left_at IS NOT NULL, r.recording <> s.recording, r.dataset, r.episode_index) = 1
ORDER BY (value->>'copy_of') IS NOT NULL, number
