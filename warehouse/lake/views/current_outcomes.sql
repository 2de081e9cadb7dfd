-- Outcomes in force: the newest statement on each run that was not taken back

SELECT o.dataset, o.episode_index, o.success, o.note, o.author, o.file, o.created_at, o.import_id, o.recording
FROM located_outcomes o
WHERE o.undoes IS NULL AND NOT EXISTS (FROM outcomes u WHERE u.undoes = o.import_id)
QUALIFY row_number() OVER (PARTITION BY dataset, episode_index ORDER BY created_at DESC, import_id DESC) = 1
