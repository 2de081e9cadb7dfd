-- Steps of an upgrade, of warehouse/lake/schema.py: what rows of earlier lakes need

-- recordings of 15: one for each episode that a dataset has or had
INSERT INTO recordings BY NAME
SELECT left(sha256(p.dataset || chr(0) || p.source_id || chr(0) || p.episode_index), 16) AS recording, p.dataset,
       p.episode_index, p.source_id, f.source_stamp, f."group", s.split,
       CASE WHEN f.dataset IS NULL AND json_extract_string(b.config, '$.episodes') IS NULL THEN now() END AS left_at
FROM (
SELECT dataset, episode_index, any_value(source_id) AS source_id FROM (
  SELECT dataset, episode_index, source_id FROM episode_facts
  UNION ALL SELECT dataset, episode_index, source_id FROM episode_ids) GROUP BY ALL) p LEFT JOIN episode_facts f USING (dataset, episode_index)
LEFT JOIN splits s USING (dataset, episode_index) LEFT JOIN build_configs b USING (dataset)
-- fingerprints of 15: of those that were built all that the lake knows of them
INSERT INTO fingerprints BY NAME
WITH moments AS (
  SELECT dataset, episode_index, camera, list(phash ORDER BY frame_index) AS moments
  FROM frames JOIN episode_content USING (dataset, episode_index)
  WHERE list_contains(list_transform(range(8), lambda k: ((k + 0.5) * num_frames // 8)::BIGINT),
                      frame_index) GROUP BY ALL),
cameras AS (
  SELECT dataset, episode_index, list(camera ORDER BY camera) AS cameras,
         flatten(list(moments ORDER BY camera)) AS moments FROM moments GROUP BY ALL)
SELECT r.recording, 1 AS version, e.num_frames, c.cameras, c.moments,
       list_append(coalesce(e.former_hashes, []), e.content_hash) AS content_hashes
FROM recordings r JOIN episode_facts f USING (dataset, episode_index)
LEFT JOIN episode_content e USING (dataset, episode_index) LEFT JOIN cameras c USING (dataset, episode_index)
-- outdated corrections: those that wait for review were made of a recording that is not there any more
SELECT c.correction_id, c.dataset, c.episode_index FROM corrections c
JOIN episode_content e USING (dataset, episode_index)
WHERE c.base_content_hash IS DISTINCT FROM e.content_hash
  AND NOT coalesce(list_contains(e.former_hashes, c.base_content_hash), false)
-- falls of 2
UPDATE label_quality q SET falls = p.falls, worst_fall = p.worst_fall FROM (
  SELECT dataset, episode_index, label_run, count(*) FILTER (fall > 0.01) AS falls,
         greatest(coalesce(max(fall), 0), 0) AS worst_fall
  FROM (SELECT *, lag(progress::DOUBLE) OVER w - progress::DOUBLE AS fall FROM progress WHERE dataset = $1
        WINDOW w AS (PARTITION BY episode_index, label_run ORDER BY frame_index)) GROUP BY ALL) p
WHERE q.dataset = p.dataset AND q.episode_index = p.episode_index AND q.label_run = p.label_run
-- numbers of 20: one recording's for good
UPDATE recordings SET episode_index = n.number FROM (
  SELECT recording, highest + row_number() OVER (PARTITION BY dataset ORDER BY episode_index, recording) AS number
  FROM (SELECT *, max(episode_index) OVER (PARTITION BY dataset) AS highest,
               row_number() OVER (PARTITION BY dataset, episode_index
                                  ORDER BY left_at IS NULL DESC, left_at DESC, recording) AS nth
        FROM recordings) WHERE nth > 1) n
WHERE recordings.recording = n.recording
-- checks of runs before 23: a lake may be older than them
CREATE TABLE IF NOT EXISTS run_checks (
  dataset VARCHAR, episode_index BIGINT, chunk INTEGER, check_name VARCHAR, camera VARCHAR, signal VARCHAR,
  start_frame BIGINT, end_frame BIGINT, measured DOUBLE, usual DOUBLE, unit VARCHAR, other_dataset VARCHAR,
  other_episode BIGINT, detail VARCHAR)
-- stretches of 23: of the finding of their check
UPDATE findings SET stretches = k.stretches FROM (
  SELECT dataset, episode_index, check_name, nullif(camera, '') AS camera,
         list(struct_pack(signal, start_frame, end_frame, measured, usual, unit, other_dataset, other_episode, detail)
              ORDER BY start_frame, signal) AS stretches
  FROM run_checks GROUP BY ALL) k
WHERE findings.stage = 'frames' AND findings.dataset = k.dataset AND findings.episode_index = k.episode_index
  AND findings.reason = k.check_name AND findings.camera IS NOT DISTINCT FROM k.camera
