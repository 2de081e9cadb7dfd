-- What queues ask for

-- LISTED_SQL: Labels of some episodes, whether or not a sign stands against them; of equal scores the less sure first
SELECT e.dataset::VARCHAR AS dataset, e.episode_index, e.chunk, nullif(e.task::VARCHAR, '') AS task,
       e.label_run::VARCHAR AS label_run, coalesce(a.score, r.score, 0) + (1 - coalesce(e.confidence, 1)) / 1000 AS score,
       list_filter(list_append(coalesce(r.why, []), a.reason), lambda word: word IS NOT NULL) AS why,
       r.signs, r.failure_signs, a.about
FROM (SELECT unnest($datasets::VARCHAR[]) AS dataset, unnest($numbers::BIGINT[]) AS episode_index,
             unnest($scores::DOUBLE[]) AS score, unnest($reasons::VARCHAR[]) AS reason,
             unnest($abouts::VARCHAR[]) AS about) a
JOIN episodes e ON e.dataset::VARCHAR = a.dataset AND e.episode_index = a.episode_index
LEFT JOIN review r ON r.dataset = a.dataset AND r.episode_index = a.episode_index
-- DONE_SQL: What was assigned to a person, and judged since
SELECT DISTINCT a.dataset, a.episode_index FROM current_assignments a
JOIN corrections c USING (dataset, episode_index) WHERE a.person = ? AND c.created_at > a.created_at
-- FOLLOWING_SQL: Labels that follow a reference and count, which nobody has judged yet
SELECT a.dataset, a.episode_index, NULL AS score, NULL AS reason, NULL AS about FROM active_runs a
WHERE a.label_run IN (SELECT label_run FROM label_runs WHERE annotator = 'transfer')
  AND NOT EXISTS (FROM current_corrections c
    WHERE c.dataset = a.dataset AND c.episode_index = a.episode_index AND c.status <> 'review')
-- CHANGED_SQL: Of those, what the annotator's label was that counted before (about), the farthest apart first
SELECT a.dataset, a.episode_index, b.apart AS score, printf('progress differs by %.3f on average', b.apart) AS reason,
       b.other_run AS about
FROM active_runs a
JOIN (SELECT d.*, mean_difference AS apart FROM label_disagreement d UNION ALL
      SELECT d.* REPLACE (other_run AS label_run, label_run AS other_run), mean_difference
      FROM label_disagreement d) b USING (dataset, episode_index, label_run)
WHERE a.label_run IN (SELECT label_run FROM label_runs WHERE annotator = 'transfer')
  AND b.other_run IN (SELECT label_run FROM label_runs WHERE annotator NOT IN ('human', 'transfer'))
  AND NOT EXISTS (FROM current_corrections c
    WHERE c.dataset = a.dataset AND c.episode_index = a.episode_index AND c.status <> 'review')
QUALIFY row_number() OVER (PARTITION BY a.dataset, a.episode_index ORDER BY b.apart DESC) = 1
-- WAITING_SQL: Corrections (about) of other contents, which wait for a person
SELECT dataset, episode_index, NULL AS score,
       concat_ws(': ', author || strftime(created_at, ', %Y-%m-%d %H:%M:%S UTC'), nullif(comment, '')) AS reason,
       correction_id AS about
FROM current_corrections WHERE status = 'review'
