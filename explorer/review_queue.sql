-- Queues of persons

-- ASSIGNED_SQL: What is assigned to a person, whether or not a sign stands against it, until somebody has judged it
SELECT e.dataset::VARCHAR AS dataset, e.episode_index, t.text AS task, e.label_run::VARCHAR AS label_run,
       coalesce(r.score, 0) AS score, list_prepend('assigned', coalesce(r.why, [])) AS why, r.signs, r.failure_signs
FROM (SELECT unnest($datasets::VARCHAR[]) AS dataset, unnest($numbers::BIGINT[]) AS episode_index) a
JOIN episodes e ON e.dataset::VARCHAR = a.dataset AND e.episode_index = a.episode_index
LEFT JOIN tasks t USING (task_id)
LEFT JOIN review r ON r.dataset = a.dataset AND r.episode_index = a.episode_index
-- DONE_SQL
SELECT DISTINCT a.dataset, a.episode_index FROM current_assignments a
JOIN corrections c USING (dataset, episode_index) WHERE a.person = ? AND c.created_at > a.created_at
