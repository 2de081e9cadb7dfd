-- What contradicts the contract in a lake: dataset, in words. $reasons: those that there are; $datasets: that were built
SELECT dataset, 'unknown reason ' || reason FROM findings WHERE NOT list_contains($reasons, reason)
UNION SELECT dataset, 'numbers of episode ' || episode_index || ' are odd' FROM (
  SELECT dataset, episode_index FROM frames WHERE NOT (isfinite(visual_change) AND isfinite(timestamp_s)
    AND isfinite(coalesce(speed, 0)) AND coalesce(gripper, 0) BETWEEN 0 AND 1)
  UNION SELECT dataset, episode_index FROM progress WHERE NOT (progress BETWEEN 0 AND 1)
  UNION SELECT dataset, episode_index FROM episodes WHERE NOT (fps > 0 AND isfinite(fps)))
UNION SELECT dataset, 'episode ' || episode_index || ' is usable and has no label'
FROM episodes ANTI JOIN progress USING (dataset, episode_index)
WHERE status = 'ok'
UNION SELECT dataset, 'no usable episode, and no reason' FROM unnest($datasets) t(dataset)
WHERE dataset NOT IN (SELECT dataset FROM findings WHERE severity = 'unusable'
                      UNION ALL SELECT dataset FROM episodes WHERE status = 'ok')
