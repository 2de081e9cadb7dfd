-- One row per dataset: how much of it is usable and labelled
-- episodes: episodes listed
-- ok: usable episodes
-- quarantined: unusable episodes
-- outcomes_known: usable episodes with a known outcome
-- assumed_complete: usable episodes labelled as complete because their outcome is unknown
-- look_unfinished: episodes of unknown outcome that look failed, by their label or the task's other runs
-- frames: frames of usable episodes
-- labelled_frames: frames with an active progress label
-- samples: number of samples
-- shards: number of shards
-- hours: duration of usable episodes
-- labels: who made the active labels, of how many usable episodes; how many have unnamed steps
-- unnamed: usable episodes whose label has steps without names: it gives progress only
-- unlabelled: usable without a label

-- What several counts rest on is put together once: to join it again for each costs twice as much
WITH listed AS MATERIALIZED (
  SELECT dataset, episode_index, num_frames, duration_s, success, status FROM episodes),
labelled AS MATERIALIZED (
  SELECT x.dataset, x.num_frames, q.end_by = 'assumed' AS is_assumed, ${UNFINISHED} AS is_unfinished,
         NOT l.named AS is_unnamed, l.episode_index IS NOT NULL AS has_label, l.steps_from, r.annotator,
         ${FOLLOWS_OTHERS} AS follows
  FROM listed x JOIN active_runs USING (dataset, episode_index)
  LEFT JOIN label_quality q USING (dataset, episode_index, label_run)
  LEFT JOIN episode_labels l USING (dataset, episode_index, label_run)
  LEFT JOIN label_runs r USING (label_run)
  WHERE x.status = 'ok'),
e AS (
  SELECT dataset, count(*) AS episodes, count(*) FILTER (status = 'ok') AS ok,
         count(*) FILTER (status = 'quarantined') AS quarantined,
         count(success) FILTER (status = 'ok') AS outcomes_known,
         coalesce(sum(num_frames) FILTER (status = 'ok'), 0)::BIGINT AS frames,
         coalesce(sum(duration_s) FILTER (status = 'ok'), 0) / 3600 AS hours
  FROM listed GROUP BY dataset),
p AS (SELECT dataset, sum(num_frames)::BIGINT AS labelled_frames, count(*) AS labelled,
             count(*) FILTER (is_assumed) AS assumed_complete,
             count(*) FILTER (is_unfinished) AS look_unfinished,
             nullif(count(*) FILTER (is_unnamed), 0) AS unnamed
      FROM labelled GROUP BY dataset),
s AS (SELECT dataset, count(*) AS samples FROM samples GROUP BY dataset),
h AS (SELECT dataset, count(*) AS shards FROM shards GROUP BY dataset),
m AS (SELECT dataset, ${MADE_BY} AS maker, count(*) AS labelled
      FROM labelled WHERE has_label AND annotator IS NOT NULL GROUP BY ALL),
o AS (SELECT dataset, maker, labelled, row_number() OVER (PARTITION BY dataset
        ORDER BY maker <> '${FROM_THE_SOURCE}', labelled DESC, maker) AS place FROM m),
w AS (SELECT dataset, string_agg(maker || ': ' || labelled ||
        CASE WHEN place = 1 THEN ' of ' || ok || ' episodes' ELSE '' END, ', ' ORDER BY place) AS labels
      FROM o JOIN e USING (dataset) GROUP BY dataset)
SELECT d.dataset, d.role, coalesce(episodes, 0) AS episodes, coalesce(ok, 0) AS ok,
       coalesce(quarantined, 0) AS quarantined, coalesce(outcomes_known, 0) AS outcomes_known,
       coalesce(assumed_complete, 0) AS assumed_complete, coalesce(look_unfinished, 0) AS look_unfinished,
       coalesce(frames, 0) AS frames,
       coalesce(labelled_frames, 0) AS labelled_frames, coalesce(samples, 0) AS samples,
       coalesce(shards, 0) AS shards, coalesce(hours, 0) AS hours,
       coalesce(labels, 'none') || coalesce(', ' || unnamed || ' with unnamed steps', '') AS labels,
       coalesce(unnamed, 0) AS unnamed, coalesce(ok, 0) - coalesce(labelled, 0) AS unlabelled
FROM datasets d LEFT JOIN e USING (dataset) LEFT JOIN p USING (dataset)
LEFT JOIN s USING (dataset) LEFT JOIN h USING (dataset) LEFT JOIN w USING (dataset)
