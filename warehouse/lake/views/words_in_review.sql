-- What people said of recordings that an episode only resembles: not in force until a person decides whether it is
--   that recording (proccorpus recordings same, or other)
-- recording: recording of the episode
-- said_of: recording that it was said of, which left the source or changed
-- kind: takedown, outcome, tag, assignment, acceptance, correction or reference
-- text: what was said, in short
-- author: person who said so; null: not known
-- why: what speaks for the same recording

WITH said AS (
  SELECT recording, 'takedown' AS kind, reason AS text, NULL AS author, created_at FROM takedowns
  UNION ALL
  SELECT recording, 'outcome',
         CASE WHEN success THEN 'succeeded' ELSE 'failed' END || coalesce(': ' || note, ''), author, created_at
  FROM (
    FROM outcomes o WHERE o.undoes IS NULL AND NOT EXISTS (FROM outcomes u WHERE u.undoes = o.import_id)
    QUALIFY row_number() OVER (PARTITION BY recording ORDER BY created_at DESC, import_id DESC) = 1)
  UNION ALL
  SELECT recording, CASE WHEN kind = 'tag' THEN 'tag' ELSE 'assignment' END, value, author, created_at FROM (
    FROM episode_marks QUALIFY row_number() OVER (
      PARTITION BY recording, kind, CASE WHEN kind = 'tag' THEN value END
      ORDER BY created_at DESC, mark_id DESC) = 1 AND is_on)
  UNION ALL
  SELECT recording, 'acceptance', check_name || ': ' || why, author, created_at FROM (
    FROM acceptances QUALIFY row_number() OVER (
      PARTITION BY recording, check_name ORDER BY created_at DESC, acceptance_id DESC) = 1 AND is_accepted)
  UNION ALL
  SELECT recording, 'correction', coalesce(nullif(comment, ''), 'a corrected label'), author, created_at FROM (
    FROM corrections c WHERE c.rejects IS NULL AND c.status <> 'rejected'
      AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id)
    QUALIFY row_number() OVER (PARTITION BY recording ORDER BY created_at DESC, correction_id DESC) = 1)
  UNION ALL
  SELECT recording, 'reference', 'a reference of its task', author, created_at FROM (
    FROM reference_marks
    QUALIFY row_number() OVER (PARTITION BY recording ORDER BY created_at DESC, mark_id DESC) = 1
      AND is_reference))
SELECT r.dataset, r.episode_index, r.recording, s.recording AS said_of, s.kind, s.text, s.author, s.created_at,
       r.why
FROM said s JOIN recordings r ON r.resembles = s.recording
WHERE r.left_at IS NULL
