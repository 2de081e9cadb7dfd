-- Known oddities that people accepted, by check; rows are only ever added. The view current_acceptances has those in
--   force
-- acceptance_id: statement_id of the row
-- episode_index: number of the run when it was said; null: all runs of the dataset
-- recording: recording that it was said of; null: all runs of the dataset
-- check_name: name of the check, see docs/quarantine.md
-- is_accepted: true: its faults are known and not told again; false: that is taken back
-- why: reason, in the author's words; empty: taken back without one

SELECT statement_id AS acceptance_id, dataset, episode_index, recording, subject AS check_name,
       (value->>'is_accepted')::BOOLEAN AS is_accepted, comment AS why, author, created_at
FROM statements WHERE kind = 'acceptance'
