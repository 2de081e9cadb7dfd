-- The references of each task: runs with an accepted correction, and runs with steps of the source if other runs
--   of the task have none; without those that people took away
-- same_as: the text that stands for the task, if people joined several
-- source: label of the reference: a correction_id, or `steps` with a hash of the source's steps
-- origin: correction, native (steps of the source), import, or mark (an annotator's label, vouched for)
-- author: person who said so; null: the source's own steps
-- content_hash: content_hash of the episode; null: its frames are not built, so it is not used yet

WITH marks AS MATERIALIZED (
  SELECT dataset, episode_index, (value->>'is_reference')::BOOLEAN AS is_reference, value->>'label_run' AS label_run,
         author, created_at
  FROM current_statements WHERE kind = 'reference'),
stated AS MATERIALIZED (FROM current_corrections WHERE status <> 'review'),
listed AS MATERIALIZED (
  SELECT f.dataset, f.episode_index, f.chunk, f.task, coalesce(j.same_as, f.task) AS same_as, f.success,
         f.steps_from IS NOT NULL AND len(f.steps) > 0 AS has_steps,
         {'from': f.steps_from, 'steps': f.steps, 'plan': f.plan} AS given
  FROM episode_facts f
  LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task),
mixed AS (
  SELECT dataset, same_as FROM listed WHERE same_as IS NOT NULL
  GROUP BY ALL HAVING bool_or(has_steps) AND NOT bool_and(has_steps)),
judged AS (
  SELECT dataset, episode_index FROM stated c LEFT JOIN label_runs r ON r.label_run = c.base_label_run
  WHERE c.status = 'accepted' OR c.status = 'rejected' AND r.annotator = 'native'),
by_source AS (
  SELECT l.dataset, l.episode_index, 'steps ' || sha256(to_json(l.given)::VARCHAR)[:16] AS source
  FROM listed l LEFT JOIN marks m USING (dataset, episode_index)
  WHERE l.has_steps AND (l.dataset, l.episode_index) NOT IN (FROM judged) AND coalesce(m.is_reference, EXISTS (
    FROM mixed x WHERE x.dataset = l.dataset AND x.same_as = l.same_as))
  -- Of many runs with steps as many as are of use, spread evenly
  WINDOW of_task AS (PARTITION BY l.dataset, l.same_as),
         in_order AS (PARTITION BY l.dataset, l.same_as ORDER BY l.episode_index)
  QUALIFY count(*) OVER of_task <= ${MOST_WITH_STEPS} OR m.is_reference
    OR row_number() OVER in_order * ${MOST_WITH_STEPS} // count(*) OVER of_task
      <> (row_number() OVER in_order - 1) * ${MOST_WITH_STEPS} // count(*) OVER of_task),
vouched AS (
  SELECT c.dataset, c.episode_index, c.correction_id AS source, c.author, c.created_at, c.base_label_run
  FROM stated c WHERE c.status = 'accepted'
  UNION ALL BY NAME
  FROM by_source)
SELECT s.dataset, l.task, l.same_as, s.episode_index, l.chunk, s.source,
       CASE WHEN starts_with(s.source, 'steps ') THEN 'native' WHEN r.annotator = 'imported' THEN 'import'
         WHEN m.label_run = s.base_label_run AND m.created_at >= s.created_at THEN 'mark'
         ELSE 'correction' END AS origin,
       coalesce(m.author, s.author) AS author, coalesce(m.created_at, s.created_at) AS created_at,
       l.success, e.content_hash
FROM vouched s
JOIN listed l USING (dataset, episode_index)
LEFT JOIN episode_content e USING (dataset, episode_index)
LEFT JOIN marks m USING (dataset, episode_index)
LEFT JOIN label_runs r ON r.label_run = s.base_label_run
WHERE coalesce(m.is_reference, true)
