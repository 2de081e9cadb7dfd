-- What a lake that lost its rows knows again by what statements say: recordings that people spoke of, which a listing
-- places by their contents, and how datasets are built

-- recordings
INSERT INTO recordings BY NAME
SELECT recording, arg_max(dataset, number) AS dataset, arg_max(episode_index, number) AS episode_index,
arg_max(source_id, number) AS source_id
FROM statements s ANTI JOIN recordings r USING (recording) WHERE recording IS NOT NULL GROUP BY 1
-- fingerprints
INSERT INTO fingerprints BY NAME
SELECT recording, list(DISTINCT content_hash) AS content_hashes FROM statements s
ANTI JOIN fingerprints f USING (recording) WHERE content_hash IS NOT NULL AND recording IS NOT NULL
AND recording NOT IN (SELECT recording FROM episode_content WHERE recording IS NOT NULL) GROUP BY 1
-- build_configs
INSERT INTO build_configs BY NAME
SELECT dataset, value->>'config_hash' AS config_hash, value->>'config' AS config, created_at
FROM standing_statements s ANTI JOIN build_configs b USING (dataset)
WHERE kind = 'build' AND json_extract_string(value->>'config', '$.dataset.name') = dataset
