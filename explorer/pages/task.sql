-- Of a task's runs

-- RUNS_SQL: Of the index
SELECT episode_index, num_frames, duration_s, success::VARCHAR AS success, quality::VARCHAR AS quality,
       demonstration_why AS why
FROM episodes WHERE dataset = TRY_CAST(? AS dataset_word) AND list_contains(?, task::VARCHAR) AND reason = 'ok'
  AND label_run <> '' AND num_frames > 0 ORDER BY episode_index
-- CURVES_SQL: The value of each run ($1, of $2 frames) at each of $4 places: the mean of the frames that belong to it
SELECT p.episode_index, (frame_index * $4 // n.num_frames)::INTEGER AS place, avg(p.progress) AS progress
FROM active_progress p JOIN (SELECT unnest($1::BIGINT[]) AS episode_index, unnest($2::BIGINT[]) AS num_frames) n
  ON n.episode_index = p.episode_index
WHERE p.dataset = $3 GROUP BY 1, 2 ORDER BY 1, 2
-- STEPS_SQL: How long runs ($2, of $3 frames a second) are at each step; odd lengths: $4 widths of the middle half beyond it
WITH lengths AS (
  SELECT s.name, s.episode_index, sum(s.end_frame - s.start_frame) / any_value(n.fps) AS seconds, min(s.step) AS step
  FROM active_segments s JOIN (SELECT unnest($2::BIGINT[]) AS episode_index, unnest($3::DOUBLE[]) AS fps) n
    ON n.episode_index = s.episode_index
  WHERE s.dataset = $1 AND s.kind = 'step' GROUP BY 1, 2),
steps AS (
  SELECT name, count(*) AS runs, median(step) AS place, quantile_cont(seconds, 0.05) AS low,
         quantile_cont(seconds, 0.25) AS lower, median(seconds) AS median, quantile_cont(seconds, 0.75) AS upper,
         quantile_cont(seconds, 0.95) AS high, (SELECT max(seconds) FROM lengths) AS longest
  FROM lengths GROUP BY 1),
odd AS (
  SELECT name, list(seconds ORDER BY seconds, episode_index) AS odd_s,
         list(episode_index ORDER BY seconds, episode_index) AS odd_runs
  FROM lengths JOIN steps USING (name)
  WHERE seconds NOT BETWEEN lower - $4 * (upper - lower) AND upper + $4 * (upper - lower) GROUP BY 1)
SELECT s.* EXCLUDE (place), coalesce(odd_s, []) AS odd_s, coalesce(odd_runs, []) AS odd_runs
FROM steps s LEFT JOIN odd USING (name) ORDER BY s.place, s.name LIMIT $5
-- JOINED_SQL
SELECT task FROM current_joined_tasks WHERE dataset = ? AND same_as = ?
