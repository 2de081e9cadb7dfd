-- One row per episode: facts, decoded content and its worst finding
-- fps: frames per second, measured from the rows' times, else as stated
-- cameras: usable cameras, the preferred one first
-- duration_s: num_frames / fps
-- reason: reason code why the episode cannot be used; null: ok
-- status: ok or quarantined
-- detail: the reason in words

WITH worst AS (
  SELECT dataset, episode_index, min_by(reason, (stage, reason)) AS reason,
         min_by(detail, (stage, reason)) AS detail
  FROM findings WHERE severity = 'unusable' AND episode_index IS NOT NULL GROUP BY ALL)
SELECT f.dataset, f.episode_index, f.chunk, f.source_id, f.task, f.tasks,
       coalesce(c.num_frames, f.num_rows) AS num_frames, coalesce(c.fps, f.fps) AS fps,
       coalesce(c.num_frames, f.num_rows) / coalesce(c.fps, f.fps) AS duration_s, c.max_drift_s,
       coalesce(c.usable_cameras, f.cameras) AS cameras, f.data_uri, f.success, f.success_source, f."group",
       CASE WHEN w.reason IS NULL THEN 'ok' ELSE 'quarantined' END AS status,
       w.reason, w.detail, f.source_stamp, c.content_hash
FROM episode_facts f
LEFT JOIN episode_content c USING (dataset, episode_index)
LEFT JOIN worst w USING (dataset, episode_index)
