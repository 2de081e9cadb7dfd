-- Of a selection of episodes

-- IN_TEXTS_SQL: A word is looked for in the distinct texts
(task_id IN (SELECT task_id FROM tasks WHERE contains(lower(text), {word})) OR row IN (SELECT row FROM step_rows JOIN steps USING (step_id) WHERE contains(lower(name), {word})))
-- IN_LAKE_SQL
(contains(lower(e.task), {word}) OR (e.dataset, e.episode_index) IN (SELECT (dataset, episode_index) FROM active_segments WHERE kind = 'step' AND contains(lower(name), {word})))
-- ROWS_SQL
SELECT row FROM episodes WHERE (dataset::VARCHAR, episode_index) IN (
  SELECT (unnest(?::VARCHAR[]), unnest(?::BIGINT[]))) ORDER BY 1
-- COUNT_MARKS_SQL
SELECT value, count(*) FROM (
  SELECT unnest($value::VARCHAR[]) AS value, unnest($dataset::VARCHAR[]) AS of_dataset,
         unnest($number::BIGINT[]) AS number)
JOIN episodes ON dataset::VARCHAR = of_dataset AND episode_index = number WHERE {where} GROUP BY 1
-- SHARDS_SQL: A line, as people copy it
SELECT DISTINCT h.split || '/' || h.shard AS shard, printf('%s-%06d', s.dataset, s.episode_index) AS key FROM samples s JOIN sample_location l USING (sample_id) JOIN shards h ON h.shard = l.shard WHERE (s.dataset, s.episode_index) IN (SELECT (dataset, episode_index) FROM ({episodes})) ORDER BY ALL
