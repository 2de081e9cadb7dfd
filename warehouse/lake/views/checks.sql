-- Faults that checks of a run's signals found, and where they stand in the run
-- start_s: second at which the stretch starts
-- end_s: second at which it ends
-- is_accepted: a person accepted it: it is known, and not told again
-- accepted_by: who accepted it; null: nobody did
-- accepted_why: reason, in that person's words

WITH copied AS (
  SELECT b.dataset, b.episode_index, b.chunk, b.num_frames, a.dataset AS of_dataset,
         a.episode_index AS of_episode
  FROM episode_content a JOIN episode_content b USING (rows_hash, num_frames)
  WHERE (a.dataset, a.chunk) < (b.dataset, b.chunk) AND len(b.row_sketch) >= ${MIN_ROWS_OF_COPY}
  QUALIFY row_number() OVER (PARTITION BY b.dataset, b.episode_index ORDER BY a.dataset, a.episode_index) = 1),
faults AS (
  FROM run_checks
  UNION ALL BY NAME
  SELECT dataset, episode_index, chunk, 'copy' AS check_name, '' AS camera, '' AS signal, 0 AS start_frame,
         num_frames AS end_frame, 0.0 AS measured, 0.0 AS usual, 'standard deviations' AS unit,
         of_dataset AS other_dataset, of_episode AS other_episode,
         format('a copy of {} episode {}: the rows are equal', of_dataset, of_episode) AS detail
  FROM copied)
SELECT k.dataset, k.episode_index, k.chunk, k.check_name, nullif(k.camera, '') AS camera,
       nullif(k.signal, '') AS signal, k.start_frame, k.end_frame, k.start_frame / c.fps AS start_s,
       k.end_frame / c.fps AS end_s, k.measured, k.usual, k.unit, k.other_dataset, k.other_episode, k.detail,
       coalesce(a.author, w.author) IS NOT NULL AS is_accepted, coalesce(a.author, w.author) AS accepted_by,
       coalesce(a.why, w.why) AS accepted_why
FROM faults k LEFT JOIN episode_content c USING (dataset, episode_index)
LEFT JOIN current_acceptances a USING (dataset, episode_index, check_name)
LEFT JOIN (FROM current_acceptances WHERE episode_index IS NULL) w
  ON w.dataset = k.dataset AND w.check_name = k.check_name
