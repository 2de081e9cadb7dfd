-- Mean absolute difference of progress between every two label runs of an episode
-- run_a: first label run, in alphabetical order
-- run_b: second label run, in alphabetical order
-- mae: mean absolute difference of progress, 0..1

SELECT a.dataset, a.episode_index, a.label_run AS run_a, b.label_run AS run_b,
       avg(abs(a.progress - b.progress)) AS mae
FROM progress a JOIN progress b
ON a.dataset = b.dataset AND a.chunk = b.chunk AND a.episode_index = b.episode_index
   AND a.frame_index = b.frame_index AND a.label_run < b.label_run
GROUP BY ALL
