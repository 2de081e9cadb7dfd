-- Embeddings of pictures by a frozen encoder, a few per second; use array_cosine_similarity to compare them
-- timestamp_s: frame_index / fps
-- embedding: 256 numbers for the whole picture; only embeddings of one encoder can be compared

SELECT b.dataset, b.episode_index, f.task, b.camera, b.frame_index, b.frame_index / c.fps AS timestamp_s,
       b.encoder, b.embedding::FLOAT[256] AS embedding
FROM embeddings b
JOIN episode_facts f USING (dataset, episode_index)
JOIN episode_content c USING (dataset, episode_index)
