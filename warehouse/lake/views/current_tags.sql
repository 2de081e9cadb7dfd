-- Tags that episodes have now
-- tag: the tag

SELECT dataset, episode_index, value AS tag, author, created_at, mark_id, recording
FROM located_episode_marks WHERE kind = 'tag'
QUALIFY row_number() OVER (
  PARTITION BY dataset, episode_index, value ORDER BY created_at DESC, mark_id DESC) = 1 AND is_on
