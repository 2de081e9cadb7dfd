-- Outcomes in force: the newest statement on each run that was not taken back
-- note: reason, in words
-- import_id: its batch

SELECT dataset, episode_index, (value->>'success')::BOOLEAN AS success, comment AS note, author,
       value->>'file' AS file, created_at, batch AS import_id, recording
FROM current_statements WHERE kind = 'outcome'
