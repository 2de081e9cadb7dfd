-- Episodes that were taken down, or whose takedown was taken back, since they were built; the next build applies it

SELECT DISTINCT f.dataset, f.episode_index, f.chunk
FROM episode_facts f
LEFT JOIN current_takedowns t ON t.dataset = f.dataset AND f.episode_index = coalesce(t.episode_index, f.episode_index)
LEFT JOIN findings d ON d.dataset = f.dataset AND d.episode_index = f.episode_index AND d.reason = 'taken_down'
WHERE (t.dataset IS NULL) <> (d.dataset IS NULL)
