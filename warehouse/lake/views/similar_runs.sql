-- How similar runs are to each other: ${MOMENTS} evenly spread moments of a run, each compared with the most
--   similar frame of the other run, by one encoder. Ask for one run: WHERE dataset = ... AND episode_index = ...
-- other_dataset: dataset of the other run
-- other_episode: episode_index of the other run
-- likeness: mean cosine similarity over the moments, -1..1

WITH asked AS (
  SELECT e.dataset, e.episode_index, e.camera, e.encoder, ${MOMENT_PICTURES}
  FROM embeddings e JOIN episode_content c USING (dataset, episode_index) GROUP BY ALL)
SELECT a.dataset, a.episode_index, a.camera, b.dataset AS other_dataset, b.episode_index AS other_episode,
       (${MOMENTS_MET}) / ${MOMENTS} AS likeness
FROM asked a JOIN embeddings b ON a.encoder = b.encoder AND (a.dataset <> b.dataset OR a.episode_index <> b.episode_index)
GROUP BY ALL
