-- What people said of recordings that an episode only resembles: not in force until a person decides whether it is
--   that recording (proccorpus say recording)
-- recording: recording of the episode
-- said_of: recording that it was said of, which left the source or changed
-- kind: takedown, outcome, tag, assignment, acceptance, correction or reference
-- text: what was said, in short
-- why: what speaks for the same recording

SELECT r.dataset, r.episode_index, r.recording, s.recording AS said_of,
       CASE s.kind WHEN 'assigned' THEN 'assignment' ELSE s.kind END AS kind,
       CASE s.kind
         WHEN 'outcome' THEN CASE WHEN (s.value->>'success')::BOOLEAN THEN 'succeeded' ELSE 'failed' END
                             || coalesce(': ' || s.comment, '')
         WHEN 'acceptance' THEN s.subject || ': ' || s.comment
         WHEN 'correction' THEN coalesce(nullif(s.comment, ''), 'a corrected label')
         WHEN 'reference' THEN 'a reference of its task'
         ELSE coalesce(s.value->>'value', s.comment) END AS text,
       s.author, s.created_at, r.why
FROM standing_statements s JOIN recordings r ON r.resembles = s.recording
WHERE r.left_at IS NULL AND coalesce((s.value->>'is_on')::BOOLEAN, (s.value->>'is_accepted')::BOOLEAN,
  (s.value->>'is_reference')::BOOLEAN, true)
  AND s.kind NOT IN ('rejection', 'recording')
