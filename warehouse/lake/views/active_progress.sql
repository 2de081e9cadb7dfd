-- Progress of each episode's active label

SELECT p.* FROM progress p JOIN active_runs a
ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
   AND p.label_run = a.label_run
