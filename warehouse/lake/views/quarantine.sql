-- Episodes (or whole datasets) that cannot be used, each with its worst finding

SELECT dataset, episode_index, camera, reason, detail, file FROM (
  SELECT *, row_number() OVER (PARTITION BY dataset, episode_index ORDER BY stage, reason, camera) AS nth
  FROM findings WHERE severity = 'unusable') WHERE nth = 1
