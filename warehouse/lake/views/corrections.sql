-- Corrections of labels by people; rows are only ever added. The view current_corrections has those in force
-- correction_id: 16 hex of sha256 over what is said
-- base_label_run: label run that was corrected or rejected
-- base_content_hash: content_hash of the episode at the time of the correction
-- follows: correction_id of the episode's previous newest row; null: there was none
-- rejects: status rejected: the correction that is taken back; null: the label of base_label_run is rejected
-- status: accepted, review (a person must look) or rejected
-- plan: names of all planned steps in order, also of those never attempted
-- segments: all segments of the corrected label as JSON; null: rejected
-- final_progress: progress at the end of the run, 0..1; null: it follows from the segments
-- catastrophic_frame: first frame from which the task cannot be saved; null: none

SELECT statement_id AS correction_id, dataset, episode_index, recording,
       coalesce(subject, value->>'base_label_run') AS base_label_run, content_hash AS base_content_hash, follows,
       undoes AS rejects, author, created_at,
       CASE WHEN kind = 'rejection' OR undoes IS NOT NULL THEN 'rejected' ELSE value->>'status' END AS status, from_json(value->'plan', '["VARCHAR"]') AS plan,
       value->>'segments' AS segments, comment, (value->>'final_progress')::DOUBLE AS final_progress,
       (value->>'catastrophic_frame')::BIGINT AS catastrophic_frame
FROM statements WHERE kind IN ${OF_LABELS}
