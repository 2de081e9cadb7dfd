-- Rows of the page of the corpus

-- COUNTS_SQL: Of the index
SELECT dataset::VARCHAR AS dataset, any_value(robot)::VARCHAR AS robot, any_value(license)::VARCHAR AS license,
       count(*) AS episodes, count(*) FILTER (reason = 'ok') AS ok,
       count(*) FILTER (reason = 'ok' AND success <> 'unknown') AS outcomes_known,
       count(*) FILTER (reason = 'ok' AND end_by = 'assumed') AS assumed_complete,
       coalesce(sum(num_frames) FILTER (reason = 'ok'), 0)::BIGINT AS frames,
       coalesce(sum(duration_s) FILTER (reason = 'ok'), 0) / 3600 AS hours,
       coalesce(sum(num_frames) FILTER (reason = 'ok' AND label_run <> '' AND named), 0)::BIGINT AS labelled_frames
FROM episodes GROUP BY 1
-- DATASETS_SQL: Of the lake: one without any listed episode is shown, too
SELECT d.dataset, d.title, d.role, c.labels, v.cost_usd, coalesce(h.shards, 0) AS shards,
       coalesce(h.samples, 0) AS samples
FROM datasets d LEFT JOIN coverage c USING (dataset)
LEFT JOIN (SELECT dataset, sum(cost_usd) AS cost_usd FROM vlm_calls GROUP BY 1) v USING (dataset)
LEFT JOIN (SELECT dataset, count(*) AS shards, sum(samples) AS samples FROM shards GROUP BY 1) h USING (dataset)
ORDER BY 1
