-- decodable_coverage: As many of a chunk's episodes with video and rows decode as `min_labelled` asks: fewer are a broken source, not bad luck.
SELECT share >= $MIN_LABELLED OR episodes <= $FEW AS passed,
       fitting || ' of ' || episodes || ' episodes with video decode' || if(passed, '', $TOO_FEW) AS detail,
       {'decodable': share, 'episodes': episodes} AS numbers
FROM (SELECT count(*) AS episodes, count(*) FILTER (status = 'ok' OR reason = $CHANGED) AS fitting,
             coalesce(fitting / nullif(episodes, 0), 1)::DOUBLE AS share
      FROM episodes e WHERE dataset = $DATASET AND chunk = $CHUNK AND NOT EXISTS (
        FROM findings f WHERE f.dataset = e.dataset AND f.episode_index = e.episode_index AND f.stage = 'episodes'
        AND f.severity = 'unusable'))

-- label_coverage: As many of a chunk's usable episodes have a label as `min_labelled` asks; the others are left out, and the findings say why.
SELECT share >= $MIN_LABELLED OR episodes <= $FEW AS passed,
       fitting || ' of ' || episodes || ' usable episodes have a label' ||
       if(passed, '', $TOO_FEW || '; one of the others: ' || coalesce((
         SELECT min(detail) FROM findings f ANTI JOIN active_runs a USING (dataset, episode_index)
         WHERE f.dataset = $DATASET AND f.chunk = $CHUNK AND f.stage = 'segments' AND f.severity = 'warning'),
         'not labelled')) AS detail,
       {'labelled': share, 'episodes': episodes} AS numbers
FROM (SELECT count(*) AS episodes, count(a.label_run) AS fitting,
             coalesce(fitting / nullif(episodes, 0), 1)::DOUBLE AS share
      FROM (FROM episodes WHERE dataset = $DATASET AND chunk = $CHUNK AND status = 'ok') e
      LEFT JOIN active_runs a USING (dataset, episode_index)
      WHERE a.label_run IS NOT NULL OR NOT list_contains([$REJECTED]::BIGINT[], episode_index))

-- label_agreement: Labels of a chunk's episodes by several annotators are near each other on average.
SELECT pairs = 0 OR mean <= $MAX_DISAGREEMENT AS passed,
       if(pairs = 0, 'labels of one annotator only',
          format('{} pairs of labels differ by {:.3f} on average, at most {:.3f} (episode {})', pairs, mean, worst, episode)) AS detail,
       {'pairs': pairs, 'mean': mean, 'worst': worst} AS numbers
FROM (SELECT count(*) AS pairs, avg(mean_difference)::DOUBLE AS mean, max(mean_difference)::DOUBLE AS worst,
             arg_max(episode_index, mean_difference) AS episode
      FROM label_disagreement WHERE dataset = $DATASET AND chunk = $CHUNK)

-- cost_within_budget: At what a chunk's questions cost, all chunks of the dataset stay within the budget of a build.
SELECT coalesce(usd * chunks <= $BUDGET, true) AS passed,
       format('{:.2f} USD for {} calls; {} chunks at that price: {:.2f} USD', usd, calls, chunks, usd * chunks) ||
       coalesce(format(', of a budget of {:g} USD', $BUDGET), '; no budget is set (max_cost_usd)') AS detail,
       {'calls': calls, 'prompt_tokens': prompt, 'completion_tokens': completion, 'usd': usd} AS numbers
FROM (SELECT count(*) AS calls, coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt,
             coalesce(sum(completion_tokens), 0)::BIGINT AS completion, coalesce(sum(cost_usd), 0)::DOUBLE AS usd,
             (SELECT count(DISTINCT chunk) FROM episode_facts WHERE dataset = $DATASET) AS chunks
      FROM vlm_calls v JOIN episode_facts e USING (dataset, episode_index)
      WHERE dataset = $DATASET AND e.chunk = $CHUNK)

-- label_drift: A chunk's labels are like the dataset's in the last release: steps per episode, end progress, confidence.
WITH labels AS (
  SELECT true AS is_former, q.end_progress, l.confidence, (
    SELECT count(*) FROM segments AS s AT (VERSION => $VERSION) WHERE s.dataset = a.dataset AND s.chunk = a.chunk
    AND s.episode_index = a.episode_index AND s.label_run = a.label_run AND s.kind = 'step') AS steps
  FROM active_runs AS a AT (VERSION => $VERSION)
  JOIN label_quality AS q AT (VERSION => $VERSION) USING (dataset, episode_index, chunk, label_run)
  JOIN episode_labels AS l AT (VERSION => $VERSION) USING (dataset, episode_index, chunk, label_run)
  WHERE a.dataset = $DATASET
  UNION ALL BY NAME
  SELECT false AS is_former, q.end_progress, l.confidence, (
    SELECT count(*) FROM segments s WHERE s.dataset = a.dataset AND s.chunk = a.chunk
    AND s.episode_index = a.episode_index AND s.label_run = a.label_run AND s.kind = 'step') AS steps
  FROM active_runs a JOIN label_quality q USING (dataset, episode_index, chunk, label_run)
  JOIN episode_labels l USING (dataset, episode_index, chunk, label_run)
  WHERE a.dataset = $DATASET AND a.chunk = $CHUNK),
statistics AS (
  SELECT nth, statistic, avg(number) FILTER (NOT is_former) AS mean, avg(number) FILTER (is_former) AS former,
         var_pop(number) FILTER (NOT is_former) / count(number) FILTER (NOT is_former) +
         var_pop(number) FILTER (is_former) / count(number) FILTER (is_former) AS variance
  FROM (SELECT is_former, unnest([{'nth': 1, 'statistic': 'steps per episode', 'number': steps::DOUBLE},
                                  {'nth': 2, 'statistic': 'end progress', 'number': end_progress::DOUBLE},
                                  {'nth': 3, 'statistic': 'confidence', 'number': confidence::DOUBLE}],
                                 recursive := true) FROM labels)
  -- Of few episodes a mean says nothing
  GROUP BY ALL HAVING least(count(number) FILTER (is_former), count(number) FILTER (NOT is_former)) >= $MIN_EPISODES)
SELECT count(*) FILTER (is_drift) = 0 AS passed,
       if(passed, 'labels are like those of release ' || $RELEASE, 'against release ' || $RELEASE || ': ' || string_agg(
         format('{} {:.3g} against {:.3g}', statistic, mean, former), '; ' ORDER BY nth) FILTER (is_drift)) AS detail,
       map_from_entries(coalesce(flatten(list([(replace(statistic, ' ', '_'), mean),
         (replace(statistic, ' ', '_') || '_then', former)] ORDER BY nth)), [])) AS numbers
-- Drift is sure, and large enough to matter
FROM (SELECT *, abs(mean - former) > greatest($MAX_Z * sqrt(variance), $MIN_DRIFT * abs(former)) AS is_drift
      FROM statistics)
