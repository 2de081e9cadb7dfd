-- The newest statement of each kind on each recording and subject that was not taken back, wherever the recording is

FROM statements s
WHERE s.undoes IS NULL AND NOT EXISTS (FROM statements u WHERE u.undoes = s.batch)
QUALIFY row_number() OVER (
  PARTITION BY coalesce(recording, dataset || ' ' || coalesce(episode_index, -1)), kind, subject
  ORDER BY created_at DESC, statement_id DESC) = 1
