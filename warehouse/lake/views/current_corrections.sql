-- Corrections in force: the accepted label of each episode, corrections that wait for a person (review), and
--   annotators' labels that must not be used (rejected)
-- status: accepted, review (the episode has changed since, or it was imported for review) or rejected

WITH said AS (
  SELECT *, true AS is_same FROM located_corrections
  UNION ALL BY NAME
  SELECT c.* REPLACE (r.dataset AS dataset, r.episode_index AS episode_index), false AS is_same
  FROM corrections c JOIN recordings r ON r.resembles = c.recording WHERE r.left_at IS NULL),
stated AS (
  SELECT c.* EXCLUDE (status, is_same), (c.episode_index // d.chunk_size)::INTEGER AS chunk,
         -- Of contents that the recording has, or had; one that is not decoded here yet had those that are kept
         is_same AND (c.base_content_hash IS NOT DISTINCT FROM e.content_hash
           OR coalesce(list_contains(e.former_hashes, c.base_content_hash), false)
           OR e.dataset IS NULL AND coalesce(list_contains(p.content_hashes, c.base_content_hash), false))
           AS fits,
         CASE WHEN c.status = 'accepted' AND NOT fits THEN 'review' ELSE c.status END AS status
  FROM said c JOIN datasets d USING (dataset) LEFT JOIN episode_content e USING (dataset, episode_index)
  LEFT JOIN fingerprints p ON p.recording = c.recording
  WHERE c.rejects IS NULL AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id)
    AND (c.status <> 'rejected' OR fits))
SELECT correction_id, dataset, episode_index, chunk, status, base_label_run, base_content_hash, follows,
       author, created_at, plan, segments, comment, final_progress, catastrophic_frame
FROM stated
QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, status,
                           CASE WHEN status = 'rejected' THEN base_label_run END
                           ORDER BY created_at DESC, correction_id DESC) = 1
  AND (status <> 'review' OR created_at >= coalesce(max(created_at) FILTER (status = 'accepted') OVER (
       PARTITION BY dataset, episode_index), created_at))
