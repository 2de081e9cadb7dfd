-- Of a release that is published: what is taken down, and its labels as tables

-- HELD_RECORDINGS: By the numbers that the release has: a takedown holds for the recording. Releases from before recordings were known have the numbers that were said
CREATE TEMP TABLE held_recordings AS
SELECT h.dataset, h.episode_index, {0} AS recording FROM held h {1}
-- TAKEN_DOWN
SELECT h.dataset || CASE WHEN d.episode_index IS NULL THEN '' ELSE ' episode ' || h.episode_index END
FROM held_recordings h JOIN down d ON CASE WHEN d.recording IS NOT NULL AND h.recording IS NOT NULL
  THEN h.recording = d.recording
  ELSE h.dataset = d.dataset AND h.episode_index = coalesce(d.episode_index, h.episode_index) END
ORDER BY h.dataset, h.episode_index LIMIT 1
-- DOWN: What is taken down now, with recordings that probably are
SELECT dataset, episode_index, recording FROM takedowns UNION
SELECT r.dataset, r.episode_index, r.recording FROM recordings r JOIN takedowns t ON t.recording = r.resembles
WHERE r.left_at IS NULL
-- episodes; a release of an earlier version has no success_source
SELECT e.dataset, e.episode_index, e.source_id, e.task, e.tasks, e.num_frames, e.fps, e.duration_s, e.cameras,
COLUMNS('^success(_source)?$'), s.split, a.label_run, a.why AS label_why, e.content_hash FROM episodes e SEMI JOIN
held USING (dataset, episode_index) JOIN splits s USING (dataset, episode_index) LEFT JOIN active_runs a USING
(dataset, episode_index) ORDER BY 1, 2
-- segments
SELECT s.* EXCLUDE (chunk) FROM active_segments s SEMI JOIN held USING (dataset, episode_index) ORDER BY dataset,
episode_index, segment_index
-- progress
SELECT p.* EXCLUDE (chunk) FROM active_progress p SEMI JOIN held USING (dataset, episode_index) ORDER BY dataset,
episode_index, frame_index
-- splits
SELECT s.* EXCLUDE (chunk) FROM splits s SEMI JOIN held USING (dataset, episode_index) ORDER BY 1, 2
-- samples; questions and answers are in the shards
SELECT s.* EXCLUDE (chunk, question, answer), l.shard FROM samples s JOIN sample_location l USING (dataset, chunk,
sample_id) WHERE l.shard IN (FROM held_shards) ORDER BY sample_id, shard
-- label_runs
SELECT r.* EXCLUDE (created_at) FROM label_runs r WHERE label_run IN (SELECT label_run FROM active_runs SEMI JOIN
held USING (dataset, episode_index)) ORDER BY 1
