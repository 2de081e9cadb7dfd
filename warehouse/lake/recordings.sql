-- Recordings, with what they are told by

-- KNOWN
SELECT r.*, e.file_stamp AS decoded_stamp,
       coalesce(e.fingerprint_version, f.version) AS version,
       coalesce(e.num_frames, f.num_frames) AS num_frames,
       coalesce(e.rows_hash, f.rows_hash) AS rows_hash,
       coalesce(e.times_hash, f.times_hash) AS times_hash,
       coalesce(e.row_sketch, f.row_sketch) AS row_sketch,
       coalesce(e.file_hash, f.file_hash) AS file_hash,
       CASE WHEN e.moments IS NULL THEN f.cameras ELSE e.usable_cameras END AS cameras,
       coalesce(e.moments, f.moments) AS moments,
       list_concat(coalesce(f.content_hashes, []), coalesce(e.former_hashes, []),
                   CASE WHEN e.content_hash IS NULL THEN [] ELSE [e.content_hash] END) AS content_hashes
FROM recordings r LEFT JOIN fingerprints f USING (recording)
LEFT JOIN (FROM episode_content WHERE {0}) e ON e.recording = r.recording
-- LIKE_SOME: Other recordings with rows, contents, bytes, a single row or a picture of some
r.left_at IS NULL AND NOT list_contains($1, r.recording) AND (
list_contains($2, e.rows_hash) OR list_contains($3, e.content_hash) OR list_contains($4, e.file_hash)
OR list_has_any(e.row_sketch, $5::UBIGINT[]) OR list_has_any(e.moments, $6::UBIGINT[]))
-- ROWS_APART: By the means of eighths of two runs, in standard deviations, in the dimension that differs most; or null
WITH both_runs AS (
  SELECT episode_index, frame_index * 8 // $4 AS part, unnest(range(len(state))) AS dimension, unnest(state) AS value
  FROM states WHERE dataset = $1 AND episode_index IN ($2, $3)),
of_parts AS (
  SELECT dimension, avg(value) FILTER (episode_index = $2) - avg(value) FILTER (episode_index = $3) AS apart
  FROM both_runs GROUP BY dimension, part),
spreads AS (SELECT dimension, stddev_pop(value) AS spread FROM both_runs GROUP BY 1)
SELECT max(apart / spread) FROM (SELECT dimension, sqrt(avg(apart ** 2)) AS apart FROM of_parts GROUP BY 1)
JOIN spreads USING (dimension) WHERE spread > 0
