-- Rows of the page of reviews

-- CHANGED_SQL: Labels that follow a reference, count, and that nobody has judged, beside the annotator's label that counted before
SELECT a.dataset, a.chunk, a.episode_index, f.task, a.label_run, b.other_run AS old_run, b.apart
FROM active_runs a JOIN episode_facts f USING (dataset, episode_index)
JOIN (SELECT d.*, mean_difference AS apart FROM label_disagreement d UNION ALL
      SELECT d.* REPLACE (other_run AS label_run, label_run AS other_run), mean_difference
      FROM label_disagreement d) b USING (dataset, episode_index, label_run)
WHERE a.label_run IN (SELECT label_run FROM label_runs WHERE annotator = 'transfer')
  AND b.other_run IN (SELECT label_run FROM label_runs WHERE annotator NOT IN ('human', 'transfer'))
  AND ($1 IS NULL OR a.dataset = $1)
  AND NOT EXISTS (FROM current_corrections c
    WHERE c.dataset = a.dataset AND c.episode_index = a.episode_index AND c.status <> 'review')
QUALIFY row_number() OVER (PARTITION BY a.dataset, a.episode_index ORDER BY b.apart DESC) = 1
ORDER BY b.apart DESC, 1, 3
-- NEWEST_SQL
SELECT dataset || ' ' || episode_index AS place, arg_max(correction_id, (created_at, correction_id))
FROM located_corrections WHERE list_contains(?, dataset || ' ' || episode_index) GROUP BY 1
-- RECORDINGS_SQL
SELECT dataset || ' ' || episode_index AS place, recording FROM recordings
WHERE left_at IS NULL AND list_contains(?, dataset || ' ' || episode_index)
-- OUTCOMES_SQL
SELECT dataset || ' ' || episode_index AS place, import_id FROM current_outcomes
WHERE list_contains(?, dataset || ' ' || episode_index)
-- ASSUMED_SQL: Whose end nobody says, without those of which somebody said it since
SELECT count(*) FILTER (end_by = 'assumed' AND dataset || ' ' || episode_index NOT IN (
         SELECT unnest($ended::VARCHAR[]))) AS assumed, count(*) AS episodes
FROM episodes WHERE reason = 'ok' AND ($dataset IS NULL OR dataset::VARCHAR = $dataset)
