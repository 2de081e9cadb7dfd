-- The person whom each episode is assigned to now
-- person: person who should look at the episode
-- mark_id: its statement_id

SELECT dataset, episode_index, value->>'value' AS person, author, created_at, statement_id AS mark_id, recording
FROM current_statements WHERE kind = 'assigned' AND (value->>'is_on')::BOOLEAN
