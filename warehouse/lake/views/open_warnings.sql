-- Findings that leave their run usable, and that nobody accepted

SELECT f.* EXCLUDE (stretches) FROM findings f
LEFT JOIN current_acceptances a
  ON a.dataset = f.dataset AND a.check_name = f.reason AND a.episode_index = f.episode_index
LEFT JOIN (FROM current_acceptances WHERE episode_index IS NULL) w
  ON w.dataset = f.dataset AND w.check_name = f.reason
WHERE f.severity = 'warning' AND a.author IS NULL AND w.author IS NULL
