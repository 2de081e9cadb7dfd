-- Episodes with stated outcomes that the corpus does not show yet; the next build applies them

SELECT f.dataset, f.episode_index, f.chunk
FROM episode_facts f LEFT JOIN current_outcomes o USING (dataset, episode_index)
WHERE CASE WHEN o.import_id IS NULL THEN starts_with(f.success_source, 'person: ')
           ELSE f.success_source IS DISTINCT FROM 'person: ' || o.file
             OR f.success IS DISTINCT FROM o.success END
