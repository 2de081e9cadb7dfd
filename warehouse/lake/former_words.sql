-- Rows of the tables of what people said, of lakes before version 20, as statements: a query for each table

-- corrections
SELECT correction_id AS statement_id, correction_id AS batch, dataset, episode_index, recording, author, created_at, 'correction' AS kind, base_content_hash AS content_hash, comment,
follows,
rejects AS undoes, CASE WHEN status = 'rejected' AND rejects IS NULL THEN base_label_run END AS subject,
to_json(struct_pack(status, base_label_run, plan, segments, final_progress, catastrophic_frame)) AS value
FROM corrections
-- outcomes
SELECT left(sha256(concat_ws(' ', import_id, dataset, episode_index)), 16) AS statement_id, import_id AS batch,
dataset, episode_index, recording, author, created_at, 'outcome' AS kind, note AS comment, undoes,
to_json(struct_pack(success, file)) AS value FROM outcomes
-- reference_marks
SELECT mark_id AS statement_id, mark_id AS batch, dataset, episode_index, recording, author, created_at, 'reference' AS kind, to_json(struct_pack(is_reference, label_run)) AS value
FROM reference_marks
-- episode_marks
SELECT mark_id AS statement_id, mark_id AS batch, dataset, episode_index, recording, author, created_at, kind, follows, CASE WHEN kind = 'tag' THEN value END AS subject,
to_json(struct_pack(value, is_on)) AS value FROM episode_marks
-- acceptances
SELECT acceptance_id AS statement_id, acceptance_id AS batch, dataset, episode_index, recording, author, created_at, 'acceptance' AS kind, check_name AS subject, why AS comment,
to_json(struct_pack(is_accepted)) AS value FROM acceptances
-- joined_tasks
SELECT left(sha256(join_id || ' ' || task), 16) AS statement_id, join_id AS batch, dataset, author, created_at,
'joined_task' AS kind, task AS subject, to_json(struct_pack(same_as)) AS value FROM joined_tasks
-- takedowns
SELECT left(sha256(concat_ws(' ', 'takedown', dataset, coalesce(episode_index, -1), recording, created_at)), 16)
AS statement_id, statement_id AS batch, dataset, episode_index, recording, created_at,
'takedown' AS kind, reason AS comment, '{}' AS value FROM takedowns
-- recording_changes: what people decided, before version 22
SELECT left(sha256(concat_ws(' ', 'decided', recording, former, created_at)), 16) AS statement_id,
       statement_id AS batch, dataset, to_episode AS episode_index, recording,
       coalesce(former, recording) AS subject, author, created_at, 'recording' AS kind,
       to_json({'is_same': what = 'same'}) AS value
FROM recording_changes WHERE what IN ('same', 'other')
