-- Of the lake, and of its catalog in SQLite (still) that is copied

-- CURRENT_SQL
SELECT id FROM ducklake_current_snapshot('lake')
-- INLINED_SQL: Few rows of a table lie in the catalog itself, in tables of their own; SQLite has lists, times and floats as text
SELECT t.table_name, i.table_name FROM still.ducklake_inlined_data_tables i
JOIN (SELECT DISTINCT table_id, table_name FROM still.ducklake_table) t USING (table_id)
-- EMPTY_SQL: DuckLake asks again and again for the numbers of a table that has none yet
INSERT INTO copied.ducklake_table_stats (table_id, record_count, next_row_id, file_size_bytes)
SELECT DISTINCT table_id, 0, 0, 0 FROM still.ducklake_table
WHERE table_id NOT IN (SELECT table_id FROM still.ducklake_table_stats)
-- SPOKEN_SQL
SELECT dataset, episode_index FROM statements WHERE list_contains(?, kind) AND number > ?
-- SHOWN_SQL: What episodes held in an earlier snapshot
SELECT dataset, episode_index, recording FROM lake.main.recordings AT (VERSION => {snapshot})
WHERE left_at IS NULL AND list_contains(?, dataset) AND list_contains(?, episode_index)
