-- Tags and assignments of episodes; rows are only ever added. The views current_tags and current_assignments have
--   those in force
-- mark_id: statement_id of the row
-- kind: tag or assigned
-- value: the tag, or the person assigned
-- is_on: true: the tag or assignment is set; false: it is removed
-- follows: mark_id of the previous row of the same tag, or of the previous assignment; null: none

SELECT statement_id AS mark_id, dataset, episode_index, recording, kind, value->>'value' AS value,
       (value->>'is_on')::BOOLEAN AS is_on, follows, author, created_at
FROM statements WHERE kind IN ('tag', 'assigned')
