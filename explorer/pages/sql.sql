-- Examples of queries

-- COVERAGE
FROM coverage ORDER BY hours DESC
-- STEPS_BY_ROBOT
SELECT d.robot, lower(split_part(s.name, ' ', 1)) AS verb, count(*) AS steps
FROM active_segments s JOIN datasets d USING (dataset)
WHERE s.kind = 'step' GROUP BY ALL ORDER BY steps DESC LIMIT 30
-- TO_LOOK_AT_FIRST
SELECT dataset, episode_index, score, why[1] AS reason, task
FROM review_queue LIMIT 50
-- WORST_DEMONSTRATIONS
SELECT dataset, episode_index, score, main, why
FROM demonstration_quality LIMIT 50
-- WHY_LEFT_OUT
SELECT reason, dataset, count(*) AS episodes
FROM quarantine GROUP BY ALL ORDER BY episodes DESC
