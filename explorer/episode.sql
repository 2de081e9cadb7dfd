-- Of a chunk ($2) of a dataset ($1): facts of its episodes, and their recordings

-- FACTS_SQL
SELECT f.dataset, f.episode_index, f.chunk, f.source_id, f.task, f.tasks, f.success, f.success_source,
       f.videos, coalesce(c.num_frames, f.num_rows) AS num_frames, coalesce(c.fps, f.fps) AS fps,
       f.fps AS stated_fps, coalesce(c.usable_cameras, f.cameras) AS cameras, f.cameras AS all_cameras,
       c.content_hash, c.former_hashes, f.data_uri, f.source_stamp, s.split, s."group"
FROM episode_facts f
LEFT JOIN (FROM episode_content WHERE dataset = $1 AND chunk = $2) c ON c.episode_index = f.episode_index
LEFT JOIN (FROM splits WHERE dataset = $1 AND chunk = $2) s ON s.episode_index = f.episode_index
WHERE f.dataset = $1 AND f.chunk = $2
-- RECORDINGS_SQL: Of which $1 is the dataset and $2 the chunk, as of all of these
SELECT episode_index, arg_max(recording, (left_at IS NULL, left_at)) AS recording FROM recordings
WHERE dataset = $1 AND episode_index // (SELECT chunk_size FROM datasets WHERE dataset = $1) = $2 GROUP BY 1
-- PREDICTIONS_SQL: Of an episode ($2), by evaluation
SELECT r.eval_run, r.model, r.benchmark, r.release, p.frames, p.prediction, p.target FROM eval_runs r JOIN (
  SELECT eval_run, list(frame_index ORDER BY frame_index) AS frames,
         list(prediction ORDER BY frame_index) AS prediction, list(target ORDER BY frame_index) AS target
  FROM eval_predictions WHERE dataset = $1 AND episode_index = $2 AND question IS NULL GROUP BY 1) p USING (eval_run)
ORDER BY r.model, r.eval_run
-- FINDINGS_SQL
SELECT episode_index, camera, stage, reason, detail, file, severity FROM findings
WHERE dataset = $1 AND chunk = $2 ORDER BY severity, reason
-- KEYFRAMES_SQL
SELECT episode_index, camera, frame_index, any_value(sha256) AS sha256 FROM keyframes
WHERE dataset = $1 AND chunk = $2 GROUP BY ALL ORDER BY 1, 2, 3
-- ACCEPTED_SQL: Of a run ($2) itself before what holds for all of its dataset
SELECT check_name, author, why, episode_index IS NULL AS is_whole FROM current_acceptances
WHERE dataset = $1 AND (episode_index IS NULL OR episode_index = $2) ORDER BY episode_index NULLS FIRST
-- WHOLE_SQL: Why whole datasets cannot be used
SELECT dataset, camera, stage, reason, detail, file, severity FROM findings
WHERE chunk IS NULL AND severity = 'unusable' ORDER BY reason
-- FOLLOWERS_SQL: Labels of an episode ($3) that were made like one that a model made of another run
SELECT label_run FROM (FROM episode_labels WHERE dataset = $1 AND chunk = $2 AND episode_index = $3) l
JOIN label_runs USING (label_run) WHERE {follows}
