-- The person whom each episode is assigned to now
-- person: person who should look at the episode

SELECT dataset, episode_index, value AS person, author, created_at, mark_id, recording
FROM located_episode_marks WHERE kind = 'assigned'
QUALIFY row_number() OVER (
  PARTITION BY dataset, episode_index ORDER BY created_at DESC, mark_id DESC) = 1 AND is_on
