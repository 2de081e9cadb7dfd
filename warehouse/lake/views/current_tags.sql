-- Tags that episodes have now
-- tag: the tag
-- mark_id: its statement_id

SELECT dataset, episode_index, subject AS tag, author, created_at, statement_id AS mark_id, recording
FROM current_statements WHERE kind = 'tag' AND (value->>'is_on')::BOOLEAN
