-- How well each run was demonstrated, compared with the other runs of its task, the worst first; needs no label
-- num_usual: number of runs of its task that it is compared with; known failures do not count; 0: fewer than five
-- score: 1: typical for its task; each part that is 3 robust deviations off halves it; null: too few runs
-- main: its most unusual part in two or three words; else 'as usual' or 'too few runs to compare'
-- why: its unusual parts in words, the most unusual first
-- rest_z: share of time at rest: robust deviations above the task's median; 0: not above it
-- pauses_z: number of stand-stills on the way: robust deviations above the task's median
-- reversals_z: number of times that it turns back: the same; null: no state
-- jerk_z: jerk: the same; null: no state
-- length_z: logarithm of its duration: robust deviations from the task's median, above or below
-- gripper_z: closings and openings of its gripper: robust deviations above the task's median; null: no gripper
-- end_state_z: distance of its last state from those of other runs: the same; null: no state
-- end_picture_z: difference of its last picture from those of other runs, by perceptual hash: the same
-- rest_share: share of its time in which it stands still
-- rest_share_usual: median of that share over the runs of its task
-- times_as_long: its duration divided by the median of its task

WITH runs AS (
  SELECT *, row_number() OVER (of_task ORDER BY episode_index) AS nth, count(*) OVER of_task AS num
  FROM (SELECT m.*, f.task, f.success, f.success IS DISTINCT FROM false AS is_usual,
          -- Nobody knows what a run without a text has in common with others: it is a task of its own
          coalesce(j.same_as, f.task, chr(0) || m.episode_index) AS same_as
        FROM demonstration_measures m JOIN episode_facts f USING (dataset, episode_index)
        LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task)
  WINDOW of_task AS (PARTITION BY dataset, same_as, is_usual)),
-- Ends are compared with those of some runs, evenly spread: with all of them large tasks would take forever
shown AS (FROM runs WHERE is_usual AND nth * least(num, ${MOST_COMPARED}) // num
          <> (nth - 1) * least(num, ${MOST_COMPARED}) // num),
spreads AS (
  SELECT dataset, same_as, list(spread ORDER BY d) AS spreads FROM (
    SELECT dataset, same_as, d, median(spread) AS spread FROM (
      SELECT dataset, same_as, unnest(state_spread)::DOUBLE AS spread,
             generate_subscripts(state_spread, 1) AS d FROM shown) GROUP BY ALL) GROUP BY ALL),
scaled AS (
  SELECT r.dataset, r.episode_index, same_as, camera, end_phash,
         CASE WHEN len(end_state) = len(spreads) THEN
           list_transform(list_zip(end_state, spreads), lambda x: CASE WHEN list_max(spreads) > 0
             THEN x[1] / greatest(x[2], ${LEAST_SPREAD} * list_max(spreads)) / sqrt(len(spreads)) ELSE 0 END)
           END AS place
  FROM runs r LEFT JOIN spreads USING (dataset, same_as)),
apart AS (
  SELECT a.dataset, a.episode_index,
         list_distance(a.place, b.place) AS state,
         CASE WHEN a.camera = b.camera THEN bit_count(xor(a.end_phash, b.end_phash)) END AS picture
  FROM scaled a JOIN (SELECT c.* FROM scaled c SEMI JOIN shown USING (dataset, episode_index)) b
    ON a.dataset = b.dataset AND a.same_as = b.same_as AND a.episode_index <> b.episode_index),
ends AS (
  SELECT dataset, episode_index,
         list_avg(list_sort(list(state) FILTER (state IS NOT NULL))[1:greatest(1, count(state) // 2)])
           AS end_state_apart,
         list_avg(list_sort(list(picture) FILTER (picture IS NOT NULL))[1:greatest(1, count(picture) // 2)])
           AS end_picture_apart
  FROM apart GROUP BY ALL),
measured AS (
  SELECT r.dataset, r.episode_index, r.task, r.same_as, r.success, r.is_usual,
         rest_s / duration_s AS rest,
         pauses AS pauses,
         reversals AS reversals,
         ln(jerk) AS jerk,
         ln(duration_s) AS length,
         gripper_moves AS gripper,
         ln(end_state_apart + ${STATE_FLOOR}) AS end_state,
         ln(end_picture_apart + ${PICTURE_FLOOR}) AS end_picture
  FROM runs r LEFT JOIN ends USING (dataset, episode_index)),
usual AS (
  SELECT dataset, same_as, count(*) AS num_usual,
         median(rest) AS rest_usual, mad(rest) AS rest_mad,
         median(pauses) AS pauses_usual, mad(pauses) AS pauses_mad,
         median(reversals) AS reversals_usual, mad(reversals) AS reversals_mad,
         median(jerk) AS jerk_usual, mad(jerk) AS jerk_mad,
         median(length) AS length_usual, mad(length) AS length_mad,
         median(gripper) AS gripper_usual, mad(gripper) AS gripper_mad,
         median(end_state) AS end_state_usual, mad(end_state) AS end_state_mad,
         median(end_picture) AS end_picture_usual, mad(end_picture) AS end_picture_mad
  FROM measured WHERE is_usual GROUP BY ALL),
-- Where too few runs show what is usual, the usual is null, and so is all that is compared with it
compared AS (
  SELECT m.*, coalesce(num_usual, 0) AS num_usual,
         rest_usual, pauses_usual, reversals_usual, jerk_usual, length_usual, gripper_usual,
         end_state_usual, end_picture_usual,
         CASE WHEN (rest - rest_usual) < 0 THEN 0 ELSE (rest - rest_usual) END
           / greatest(${LEAST_REST}, ${MAD_TO_STD} * rest_mad) AS rest_z,
         CASE WHEN (pauses - pauses_usual) < 0 THEN 0 ELSE (pauses - pauses_usual) END
           / greatest(${LEAST_PAUSES}, ${MAD_TO_STD} * pauses_mad) AS pauses_z,
         CASE WHEN (reversals - reversals_usual) < 0 THEN 0 ELSE (reversals - reversals_usual) END
           / greatest(${LEAST_REVERSALS}, ${MAD_TO_STD} * reversals_mad) AS reversals_z,
         CASE WHEN (jerk - jerk_usual) < 0 THEN 0 ELSE (jerk - jerk_usual) END
           / greatest(${LEAST_JERK}, ${MAD_TO_STD} * jerk_mad) AS jerk_z,
         abs((length - length_usual))
           / greatest(${LEAST_LENGTH}, ${MAD_TO_STD} * length_mad) AS length_z,
         CASE WHEN (gripper - gripper_usual) < 0 THEN 0 ELSE (gripper - gripper_usual) END
           / greatest(${LEAST_GRIPPER}, ${MAD_TO_STD} * gripper_mad) AS gripper_z,
         CASE WHEN (end_state - end_state_usual) < 0 THEN 0 ELSE (end_state - end_state_usual) END
           / greatest(${LEAST_END_STATE}, ${MAD_TO_STD} * end_state_mad) AS end_state_z,
         CASE WHEN (end_picture - end_picture_usual) < 0 THEN 0 ELSE (end_picture - end_picture_usual) END
           / greatest(${LEAST_END_PICTURE}, ${MAD_TO_STD} * end_picture_mad) AS end_picture_z
  FROM measured m LEFT JOIN usual u
    ON u.dataset = m.dataset AND u.same_as = m.same_as AND u.num_usual >= ${FEWEST}),
judged AS (
  SELECT *,
         list_filter([{'z': rest_z, 'short': 'stands still',
            'why': format('stands still for {:.0f} % of its time, others of its task {:.0f} %',
                          100 * rest, 100 * rest_usual)},
           {'z': pauses_z, 'short': 'stops on the way',
            'why': 'stand-stills on the way: ' || pauses::INTEGER || ', others of its task '
                   || format('{:.2g}', pauses_usual)},
           {'z': reversals_z, 'short': 'turns back',
            'why': 'turns back: ' || reversals::INTEGER || ', others of its task '
                   || format('{:.2g}', reversals_usual)},
           {'z': jerk_z, 'short': 'moves roughly',
            'why': 'its jerk is ' || format('{:.2g}', exp(jerk - jerk_usual)) || ' times the usual'},
           {'z': length_z, 'short': CASE WHEN length > length_usual THEN 'takes long' ELSE 'is short' END,
            'why': format('{:.2g}', exp(length - length_usual)) || ' times as long as others of its task'},
           {'z': gripper_z, 'short': 'gripper moves more',
            'why': 'closings and openings of the gripper: ' || gripper::INTEGER || ', others of its task '
                   || format('{:.2g}', gripper_usual)},
           {'z': end_state_z, 'short': 'ends elsewhere',
            'why': 'ends ' || format('{:.2g}', exp(end_state - end_state_usual))
                   || ' times as far from others of its task as is usual'},
           {'z': end_picture_z, 'short': 'last picture differs',
            'why': 'its last picture is ' || format('{:.2g}', exp(end_picture - end_picture_usual))
                   || ' times as unlike those of others as is usual'}],
           lambda part: part.z >= ${ODD_Z}) AS odd FROM compared)
SELECT dataset, episode_index, task, success, num_usual,
       CASE WHEN num_usual > 0 THEN round(0.5 ^ ((least(${MOST_Z}, coalesce(rest_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(pauses_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(reversals_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(jerk_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(length_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(gripper_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(end_state_z, 0)) ^ 2
           + least(${MOST_Z}, coalesce(end_picture_z, 0)) ^ 2) / ${HALVES_Z_SQUARED}), 6) END AS score,
       CASE WHEN num_usual = 0 THEN '${TOO_FEW}' WHEN len(odd) = 0 THEN '${AS_USUAL}'
         ELSE list_sort(odd, 'DESC')[1].short END AS main,
       CASE WHEN num_usual = 0 THEN ['${TOO_FEW}']
         ELSE list_transform(list_sort(odd, 'DESC'), lambda part: part.why) END AS why,
       round(rest_z, 4) AS rest_z, round(pauses_z, 4) AS pauses_z, round(reversals_z, 4) AS reversals_z,
       round(jerk_z, 4) AS jerk_z, round(length_z, 4) AS length_z, round(gripper_z, 4) AS gripper_z,
       round(end_state_z, 4) AS end_state_z, round(end_picture_z, 4) AS end_picture_z,
       rest AS rest_share, rest_usual AS rest_share_usual, exp(length - length_usual) AS times_as_long
FROM judged ORDER BY score NULLS LAST, dataset, episode_index
