-- Outcomes of runs that people stated; rows are only ever added. The view current_outcomes has those in force
-- import_id: id of the rows that were saved together
-- success: true: the run succeeded; null: the row takes an import back
-- note: reason, in the author's words; null: none given
-- file: name of the imported file; null: the row takes an import back
-- undoes: import that is taken back; null: the row states an outcome

SELECT batch AS import_id, dataset, episode_index, recording, (value->>'success')::BOOLEAN AS success,
       comment AS note, author, value->>'file' AS file, undoes, created_at
FROM statements WHERE kind = 'outcome'
