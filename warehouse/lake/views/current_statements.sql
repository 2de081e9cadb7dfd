-- Statements in force: the newest of each kind and subject that was not taken back, by the present numbers

FROM located_statements s
WHERE s.undoes IS NULL AND NOT EXISTS (FROM statements u WHERE u.undoes = s.batch)
QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, kind, subject
                           ORDER BY created_at DESC, statement_id DESC) = 1
