-- Rows of the page of reviews

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
-- PACE_SQL: Who judged how many episodes in the last day, and how long one took without gaps from $1 seconds on, however often it was saved
SELECT author, count(*) AS judged, median(took) AS seconds FROM (
  SELECT author, sum(gap) FILTER (gap < $1) AS took FROM (
    SELECT author, dataset, episode_index,
           epoch(created_at - lag(created_at) OVER (PARTITION BY author ORDER BY created_at)) AS gap
    FROM corrections WHERE created_at > now() - INTERVAL 1 DAY)
  GROUP BY author, dataset, episode_index)
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10
