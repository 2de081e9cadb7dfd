-- Of an episode

-- STAGES_SQL: What made the rows of a chunk ($2)
SELECT stage, chunk, label_run, code_version, finished_at, duration_s, snapshot FROM stage_runs
WHERE dataset = $1 AND chunk IN (-1, $2) AND NOT (stage = 'episodes' AND chunk >= 0) ORDER BY finished_at, stage
-- CALLS_SQL
FROM vlm_calls WHERE dataset = $1 AND episode_index = $2 ORDER BY label_run, build_id, stage, call_key LIMIT $3
-- CURVE_SQL: Of the label that counts
SELECT frame_index, progress FROM progress WHERE dataset = $1 AND chunk = $2 AND episode_index = $3 AND label_run = (
  SELECT label_run FROM active_runs WHERE dataset = $1 AND chunk = $2 AND episode_index = $3) ORDER BY 1
-- SEGMENTS_SQL
SELECT start_frame, end_frame, step FROM segments WHERE dataset = $1 AND chunk = $2 AND episode_index = $3
  AND label_run = (
    SELECT label_run FROM active_runs WHERE dataset = $1 AND chunk = $2 AND episode_index = $3) ORDER BY 1
-- DEMONSTRATION_SQL: Of the index
SELECT demonstration::VARCHAR AS main, demonstration_score AS score, demonstration_why AS why FROM episodes
WHERE dataset = TRY_CAST(? AS dataset_word) AND episode_index = ? AND demonstration_why IS NOT NULL
-- INDEXED_NEIGHBOURS_SQL: Of the index
SELECT max(episode_index) FILTER (episode_index < $2), min(episode_index) FILTER (episode_index > $2)
FROM episodes WHERE dataset = TRY_CAST($1 AS dataset_word)
-- NEIGHBOURS_SQL
SELECT max(episode_index) FILTER (episode_index < $2), min(episode_index) FILTER (episode_index > $2)
FROM episode_facts WHERE dataset = $1
