-- Rows of ${TABLE} by the present number of their recording; without those of recordings that left

SELECT w.* REPLACE (coalesce(r.dataset, w.dataset) AS dataset,
                    CASE WHEN r.recording IS NULL THEN w.episode_index ELSE r.episode_index END
                    AS episode_index)
FROM ${TABLE} w LEFT JOIN recordings r ON r.recording = w.recording
WHERE w.recording IS NULL OR r.recording IS NOT NULL AND r.left_at IS NULL
