-- For each frame with an embedding: the most similar frame of every other run. Ask for one frame: WHERE dataset =
--   ... AND episode_index = ... AND frame_index = ...
-- other_dataset: dataset of the other run
-- other_episode: episode_index of the other run
-- other_camera: camera of that frame
-- other_frame: frame_index in the other run; the first of equally similar frames
-- likeness: cosine similarity of the two embeddings, -1..1

SELECT dataset, episode_index, camera, frame_index, other_dataset, other_episode, best.camera AS other_camera,
       -best.back AS other_frame, best.likeness AS likeness
FROM (
  SELECT a.dataset, a.episode_index, a.camera, a.frame_index, b.dataset AS other_dataset,
         b.episode_index AS other_episode,
         max({'likeness': array_cosine_similarity(a.embedding::FLOAT[256], b.embedding::FLOAT[256]),
              'back': -b.frame_index, 'camera': b.camera}) AS best
  FROM embeddings a JOIN embeddings b ON a.encoder = b.encoder AND (a.dataset <> b.dataset OR a.episode_index <> b.episode_index)
  GROUP BY ALL)
