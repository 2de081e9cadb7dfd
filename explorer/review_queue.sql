-- What queues ask for

-- LISTED_SQL: Labels of some episodes, whether or not a sign stands against them; of equal scores the less sure first
SELECT e.dataset::VARCHAR AS dataset, e.episode_index, nullif(e.task::VARCHAR, '') AS task,
       e.label_run::VARCHAR AS label_run, coalesce(r.score, 0) + (1 - coalesce(e.confidence, 1)) / 1000 AS score,
       list_concat($reasons::VARCHAR[], coalesce(r.why, [])) AS why, r.signs, r.failure_signs
FROM (SELECT unnest($datasets::VARCHAR[]) AS dataset, unnest($numbers::BIGINT[]) AS episode_index) a
JOIN episodes e ON e.dataset::VARCHAR = a.dataset AND e.episode_index = a.episode_index
LEFT JOIN review r ON r.dataset = a.dataset AND r.episode_index = a.episode_index
-- DONE_SQL: What was assigned to a person, and judged since
SELECT DISTINCT a.dataset, a.episode_index FROM current_assignments a
JOIN corrections c USING (dataset, episode_index) WHERE a.person = ? AND c.created_at > a.created_at
-- FOLLOWING_SQL: Labels that follow a reference and count, which nobody has judged yet
SELECT a.dataset, a.episode_index FROM active_runs a
WHERE a.label_run IN (SELECT label_run FROM label_runs WHERE annotator = 'transfer')
  AND NOT EXISTS (FROM current_corrections c
    WHERE c.dataset = a.dataset AND c.episode_index = a.episode_index AND c.status <> 'review')
