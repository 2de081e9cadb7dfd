-- Episodes (or whole datasets) that cannot be used or have no label, each with its worst finding

SELECT dataset, episode_index, camera, reason,
       detail || coalesce(' (episode ' || source_index || ' of the source)', '') AS detail, file, severity FROM (
  SELECT f.*, e.source_index, row_number() OVER (PARTITION BY f.dataset, f.episode_index
                                 ORDER BY f.severity, f.stage, f.reason, f.camera) AS nth
  FROM findings f LEFT JOIN active_runs a USING (dataset, episode_index)
  LEFT JOIN episode_facts e USING (dataset, episode_index)
  WHERE f.severity = 'unusable' OR (
    f.stage IN ('segments', 'corrections') AND a.label_run IS NULL
    AND f.reason NOT IN ('task_inferred', 'needs_review', 'bad_steps', 'no_steps'))) WHERE nth = 1
