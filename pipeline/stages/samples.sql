-- What samples are made of

-- LABELLED_SQL: Usable episodes with their splits, the annotator's words by frame, pictures' sizes by camera, and of each camera the ones that show something else, not nearly the same from beside it
WITH sizes AS (
  SELECT episode_index, map_from_entries(list({'k': camera, 'v': [width_px, height_px]})) AS sizes FROM keyframes
  WHERE dataset = $1 AND chunk = $2 AND frame_index = 0 AND purpose = 'coarse' GROUP BY 1),
words AS (
  SELECT episode_index, label_run, map_from_entries(list({'k': frame_index, 'v': text})) AS reasons FROM reasoning
  WHERE dataset = $1 AND chunk = $2 GROUP BY ALL),
distances AS (
  SELECT x.episode_index, x.camera, y.camera AS other, median(bit_count(xor(x.phash, y.phash))) AS distance
  FROM frames x JOIN frames y USING (dataset, chunk, episode_index, frame_index)
  WHERE dataset = $1 AND chunk = $2 AND frame_index % 10 = 0 AND x.camera <> y.camera GROUP BY ALL),
others AS (
  SELECT episode_index, camera, list(other ORDER BY other) AS others FROM distances WHERE distance >= $3 GROUP BY ALL),
unlike AS (
  SELECT episode_index, map_from_entries(list({'k': camera, 'v': others})) AS unlike FROM others GROUP BY 1)
SELECT e.dataset, e.episode_index, e.chunk, e.fps, e.num_frames, e.task, e.success, e.cameras, s.split,
  sizes, reasons, unlike
FROM episodes e JOIN splits s USING (dataset, episode_index) LEFT JOIN active_runs a USING (dataset, episode_index)
LEFT JOIN words w ON w.episode_index = e.episode_index AND w.label_run = a.label_run
LEFT JOIN sizes z ON z.episode_index = e.episode_index LEFT JOIN unlike u ON u.episode_index = e.episode_index
WHERE e.dataset = $1 AND e.chunk = $2 AND e.status = 'ok' ORDER BY 2
