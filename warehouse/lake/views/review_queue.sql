-- Suspicious labels that nobody has reviewed, most suspicious first
-- score: how likely the label is wrong, from all signs together, 0..1
-- signs: the signs, a fault that a check found first, then the strongest
-- why: the same in words for people: in place of the first what was found, where and for how long
-- disagreement: largest mean difference to the progress of another label run, 0..1

WITH apart AS (
  SELECT dataset, episode_index, label_run, max(mean_difference) AS disagreement FROM (
    SELECT dataset, episode_index, label_run, mean_difference FROM label_disagreement
    UNION ALL
    SELECT dataset, episode_index, other_run, mean_difference FROM label_disagreement) GROUP BY ALL),
faults AS (
  SELECT dataset, episode_index, list(detail ORDER BY end_frame - start_frame DESC, detail) AS words
  FROM checks WHERE NOT is_accepted GROUP BY ALL),
labels AS (
  SELECT q.*, l.confidence, l.needs_review, l.named, x.disagreement, 1 - l.confidence AS doubt,
         f.words,
         CASE WHEN ${UNFINISHED} THEN greatest(coalesce(p_failure, 0), ${LOOKS_UNFINISHED})
              ELSE p_failure END AS unfinished
  FROM label_quality q
  JOIN active_runs a USING (dataset, episode_index, label_run)
  JOIN episode_labels l USING (dataset, episode_index, label_run)
  LEFT JOIN apart x USING (dataset, episode_index, label_run)
  LEFT JOIN faults f USING (dataset, episode_index)
  WHERE NOT starts_with(label_run, 'human/')),
-- Each sign: how likely the label is wrong by it alone, and whether it is a reason to look
signs AS (
  SELECT dataset, episode_index, label_run, unnest([
    {'why': '${FAULTY}', 'score': 0.6, 'holds': words IS NOT NULL},
    {'why': 'the annotator asks for a person', 'score': 1.0, 'holds': needs_review},
    {'why': 'label and source contradict each other about success', 'score': 0.9, 'holds': contradicts},
    {'why': CASE WHEN unfinished >= ${LOOKS_UNFINISHED} THEN 'looks unfinished' ELSE 'may be unfinished' END,
     'score': unfinished, 'holds': unfinished >= ${MAY_BE_UNFINISHED}},
    {'why': 'the annotator is unsure', 'score': doubt, 'holds': confidence < ${MIN_CONFIDENCE}},
    {'why': 'labels of two runs disagree', 'score': least(1.0, disagreement * 2.5),
     'holds': disagreement > ${MAX_MEAN_DIFFERENCE}},
    {'why': 'progress jumps', 'score': jump, 'holds': jump > ${MAX_JUMP}},
    {'why': 'a step of a moment', 'score': 0.6, 'holds': shortest_step_s < ${MIN_STEP_S}},
    {'why': 'odd order of steps', 'score': order_rarity ^ 2 / 2, 'holds': order_rarity > ${MAX_ORDER_RARITY}},
    {'why': 'odd length', 'score': least(0.3, abs(length_z) / 20), 'holds': abs(length_z) > ${MAX_LENGTH_Z}},
    {'why': 'steps without a name', 'score': 0.95, 'holds': NOT named}]) AS sign
  FROM labels),
-- What is continuous counts below its threshold as well, so that labels are ranked by all that is known of them
scored AS (
  SELECT dataset, episode_index, label_run,
         round(1 - product(1 - CASE
           WHEN sign.holds OR sign.why IN ('may be unfinished', 'the annotator is unsure')
           THEN least(coalesce(sign.score, 0), 1.0) ELSE 0 END), 6) AS score,
         list(sign.why ORDER BY sign.why = '${FAULTY}' DESC, sign.score DESC, sign.why) FILTER (sign.holds)
           AS signs
  FROM signs GROUP BY ALL HAVING bool_or(sign.holds))
SELECT dataset, episode_index, e.task, e.success, label_run, score, signs,
       CASE WHEN l.words IS NULL THEN signs ELSE list_concat(l.words[:${MOST_FAULTS}], CASE WHEN
         len(l.words) > ${MOST_FAULTS} THEN [(len(l.words) - ${MOST_FAULTS}) || ' more faults'] END,
         signs[2:]) END AS why, l.confidence, l.needs_review,
       l.length_z, l.order_rarity, l.jump, l.end_progress, l.disagreement, l.end_by, l.p_failure,
       l.failure_signs
FROM scored
JOIN episode_facts e USING (dataset, episode_index)
JOIN labels l USING (dataset, episode_index, label_run)
ORDER BY score DESC, dataset, episode_index
