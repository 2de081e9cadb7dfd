-- Episodes with equal rows and length, within a dataset or in several
-- episodes: dataset and number of each

SELECT rows_hash, num_frames, list(dataset || ' ' || episode_index ORDER BY dataset, episode_index) AS episodes
FROM episode_content WHERE rows_hash IS NOT NULL GROUP BY ALL HAVING count(*) > 1
