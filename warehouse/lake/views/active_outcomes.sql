-- What the end of each active label rests on
-- outcome_assumed: true: the label assumes success

SELECT q.dataset, q.episode_index, q.label_run, q.end_progress, q.end_by,
       q.end_by = 'assumed' AS outcome_assumed
FROM label_quality q JOIN active_runs USING (dataset, episode_index, label_run)
