-- Segments of each episode's active label

SELECT s.* FROM segments s JOIN active_runs a
ON s.dataset = a.dataset AND s.chunk = a.chunk AND s.episode_index = a.episode_index
   AND s.label_run = a.label_run
