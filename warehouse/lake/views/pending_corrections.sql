-- Episodes whose labels and samples do not show yet what people said of their labels, or what they took back of it;
--   the next build applies it
-- what: kind of the change: corrected, rejected (another label, or for another reason) or taken back (nothing is left)

WITH words AS (
  SELECT c.dataset, c.episode_index, c.chunk, c.correction_id,
         CASE c.status WHEN 'accepted' THEN 'corrected' ELSE 'rejected' END AS kind,
         CASE WHEN c.status = 'accepted' THEN c.correction_id
           -- As the stage corrections words it
           WHEN c.comment <> '' THEN 'label ' || c.base_label_run || ': ' || c.comment
           ELSE 'label ' || c.base_label_run END AS present
  FROM current_corrections c LEFT JOIN episode_content e USING (dataset, episode_index)
  WHERE c.status = 'rejected' OR c.status = 'accepted' AND e.dataset IS NOT NULL
  UNION ALL BY NAME
  SELECT dataset, episode_index, chunk, 'corrected' AS kind, correction_id AS built
  FROM episode_labels WHERE correction_id IS NOT NULL
  UNION ALL BY NAME
  SELECT dataset, episode_index, chunk, 'rejected' AS kind, detail AS built
  FROM findings WHERE reason = 'label_rejected')
SELECT dataset, episode_index, chunk, CASE WHEN count(present) = 0 THEN 'taken back' ELSE kind END AS what
FROM words GROUP BY dataset, episode_index, chunk, kind
HAVING string_agg(present, '; ' ORDER BY correction_id) IS DISTINCT FROM max(built)
