-- Episodes with corrections that their labels and samples do not show yet; the next build applies them
-- what: kind of the change: corrected, taken back or rejected

WITH human AS (
  SELECT l.dataset, l.episode_index, l.chunk, l.correction_id
  FROM episode_labels l WHERE l.correction_id IS NOT NULL),
accepted AS (FROM current_corrections WHERE status = 'accepted')
SELECT coalesce(c.dataset, h.dataset) AS dataset, coalesce(c.episode_index, h.episode_index) AS episode_index,
       coalesce(c.chunk, h.chunk) AS chunk, CASE WHEN c.correction_id IS NULL THEN 'taken back' ELSE 'corrected'
       END AS what
FROM accepted c FULL JOIN human h ON c.dataset = h.dataset AND c.episode_index = h.episode_index
WHERE c.correction_id IS DISTINCT FROM h.correction_id
UNION ALL
SELECT c.dataset, c.episode_index, c.chunk, 'rejected' FROM current_corrections c
JOIN active_runs a ON a.dataset = c.dataset AND a.episode_index = c.episode_index
  AND a.label_run = c.base_label_run
WHERE c.status = 'rejected'
