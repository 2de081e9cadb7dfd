-- References that people marked or took away; rows are only ever added. The view current_references has those in
--   force
-- mark_id: statement_id of the row
-- is_reference: true: the run is a reference for its task; false: it is not
-- label_run: label run that the person vouches for; null: the run is a reference no more

SELECT statement_id AS mark_id, dataset, episode_index, recording,
       (value->>'is_reference')::BOOLEAN AS is_reference, value->>'label_run' AS label_run, author, created_at
FROM statements WHERE kind = 'reference'
