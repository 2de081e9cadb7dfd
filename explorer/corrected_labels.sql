-- What people say of episodes

-- SPOKEN_OF_SQL
SELECT dataset, episode_index FROM located_statements WHERE list_contains($1, kind) UNION
SELECT r.dataset, r.episode_index FROM recordings r JOIN statements s ON s.recording = r.resembles
WHERE list_contains($1, s.kind) AND r.left_at IS NULL
