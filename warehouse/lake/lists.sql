-- quarantine: Quarantine
-- Which episodes and datasets cannot be used, and why?
-- Nothing is quarantined.
SELECT dataset, episode_index, camera, reason, detail, file FROM quarantine ORDER BY ALL

-- quarantine_reasons: Reasons of the quarantine
-- How many episodes does each reason make unusable, and what helps?
-- Nothing is quarantined.
SELECT dataset, reason, count(DISTINCT episode_index) AS episodes, min(episode_index) AS first_episode,
       arg_min(detail, (episode_index IS NULL, episode_index, camera)) AS first_detail, any_value(r.remedy) AS remedy
FROM quarantine JOIN (VALUES ${REMEDIES}) r(reason, remedy) USING (reason)
GROUP BY dataset, reason ORDER BY episodes DESC, dataset, reason

-- faults: Faults
-- Which usable episodes have faults that checks found and nobody accepted?
-- No check found a fault that is not accepted.
SELECT c.dataset, episode_index, c.camera, c.check_name AS reason, c.detail, c.start_s, c.end_s
FROM checks c JOIN episodes e USING (dataset, episode_index)
WHERE NOT c.is_accepted AND e.status = 'ok' ORDER BY ALL

-- fault_reasons: Checks that found faults
-- How many usable episodes does each check find faulty, and what helps?
-- No check found a fault that is not accepted.
SELECT c.dataset, check_name AS reason, count(DISTINCT episode_index) AS episodes,
       min(episode_index) AS first_episode, arg_min(c.detail, (episode_index, c.camera)) AS first_detail,
       any_value(r.remedy) AS remedy
FROM checks c JOIN episodes e USING (dataset, episode_index)
JOIN (VALUES ${REMEDIES}) r(code, remedy) ON r.code = c.check_name
WHERE NOT c.is_accepted AND e.status = 'ok'
GROUP BY c.dataset, check_name ORDER BY episodes DESC, c.dataset, reason

-- demonstrations: Odd demonstrations
-- Which runs differ most from others of their task, and how?
-- No run is unlike the others of its task, as far as 5 runs or more of a task show what is usual.
SELECT dataset, episode_index, score, why, task FROM demonstration_quality
WHERE score IS NOT NULL AND len(why) > 0 ORDER BY score, dataset, episode_index

-- current_corrections: Corrections in force
-- Which labels did people correct or reject, and what waits for review?
-- Nobody corrected anything.
SELECT dataset, episode_index, status, correction_id, author, created_at, base_label_run, comment
FROM current_corrections ORDER BY dataset, episode_index, created_at, correction_id

-- corrections: Corrections
-- What was ever said of labels, also what is replaced or withdrawn?
-- Nobody corrected anything.
SELECT c.dataset, coalesce(r.episode_index, c.episode_index) AS episode_index, status, correction_id, author,
       created_at, base_label_run, comment
FROM corrections c LEFT JOIN recordings r USING (recording) ORDER BY 1, 2, created_at, correction_id

-- current_outcomes: Outcomes in force
-- How did runs end, as people say?
-- Nobody said how any run ended.
SELECT o.dataset, o.episode_index, success, note, author, created_at, file, import_id,
       left(content_hash, 16) AS content_hash
FROM current_outcomes o LEFT JOIN episode_content USING (dataset, episode_index) ORDER BY 1, 2

-- outcomes: Outcomes
-- What was ever said of how runs ended, and what of it counts?
-- Nobody said how any run ended.
SELECT dataset, episode_index, success, note, author, created_at, file, import_id, undoes,
       EXISTS (FROM current_outcomes c
               WHERE c.import_id = o.import_id AND c.episode_index = o.episode_index) AS counts
FROM located_outcomes o ORDER BY dataset, episode_index, created_at, import_id

-- outcome_shares: Known outcomes
-- Of how many runs is known how they ended, and what says so?
-- No episode is listed yet.
SELECT dataset, coalesce(success_source, 'not known') AS source, count(*) AS episodes,
       count(*) FILTER (success) AS succeeded, count(*) FILTER (NOT success) AS failed
FROM episodes WHERE status = 'ok' GROUP BY dataset, success_source ORDER BY dataset, success_source NULLS LAST

-- current_references: References
-- Which runs are others labelled like, who says so, and how many follow each?
-- No reference yet: set the steps of one run in proccorpus explore, or say reference DATASET EPISODE.
WITH following AS (
  SELECT a.dataset, a.reference_episode AS episode_index, count(DISTINCT a.episode_index) AS runs
  FROM alignments a JOIN active_runs x USING (dataset, episode_index, label_run) WHERE a.follows GROUP BY ALL)
SELECT r.dataset, r.same_as AS task, r.episode_index, r.origin, r.author, r.created_at,
       r.content_hash IS NOT NULL AS built, coalesce(f.runs, 0) AS followed_by
FROM current_references r LEFT JOIN following f USING (dataset, episode_index)
ORDER BY r.dataset, r.same_as, r.episode_index

-- recordings: Recordings
-- Which recording does each episode hold, and which ones left their source?
-- No recording is known yet.
SELECT dataset, episode_index, source_id, recording, left_at, split, resembles, why FROM recordings
ORDER BY dataset, left_at IS NOT NULL, episode_index

-- recording_changes: Changes of recordings
-- Which recordings moved, left, came back, or were recorded anew?
-- Every recording is where it was first.
SELECT dataset, created_at, what, from_episode, to_episode, from_source_id, to_source_id, why, author, recording
FROM recording_changes ORDER BY created_at DESC, coalesce(to_episode, from_episode)

-- words_in_review: Words that wait
-- What did people say of recordings that an episode only resembles?
-- Nothing waits: it is clear what everything was said of.
SELECT dataset, episode_index, kind, text, author, why, said_of FROM words_in_review
ORDER BY dataset, episode_index, kind, created_at

-- releases: Releases
-- Which releases are there, and how large are they?
-- No release yet.
SELECT r.name, r.snapshot, r.config_hash, count(s.shard) AS shards, sum(s.samples)::BIGINT AS samples,
       sum(s.bytes)::BIGINT AS bytes, r.created_at
FROM releases r LEFT JOIN release_shards s USING (name) GROUP BY ALL ORDER BY r.created_at DESC

-- release_contents: Contents of releases
-- What does each release hold of each dataset and split?
-- There is no such release.
SELECT name, dataset, split, count(*) AS shards, sum(episodes)::BIGINT AS episodes, sum(samples)::BIGINT AS samples,
       sum(bytes)::BIGINT AS bytes
FROM release_shards GROUP BY ALL ORDER BY name, dataset, split

-- release_commands: Commands for releases
-- What is there to do with each release, in a terminal?
-- No release yet: proccorpus release create NAME.
SELECT name, what, replace(command, 'NAME', name) AS command FROM releases, (VALUES
  ('look at it', 'proccorpus explore --release NAME'), ('check its files', 'proccorpus release verify NAME'),
  ('ask it in SQL', 'proccorpus sql --release NAME "FROM coverage"'),
  ('train on it', 'proccorpus train --recipe laptop --release NAME'),
  ('score the newest model on it', 'proccorpus eval --release NAME'),
  ('export it', 'proccorpus export lerobot --release NAME --out NAME')) c(what, command)
ORDER BY created_at DESC, name

-- leaderboard: Leaderboard
-- How do models score beside the baselines? seen_episodes: of how many the model was trained on.
-- No model is evaluated yet: proccorpus eval scores one, and the baselines, on episodes that training has not seen.
SELECT model, value, low, high, n, seen_episodes, coverage, release, created_at, benchmark, slice, metric, eval_run
FROM leaderboard
WHERE NOT starts_with(metric, 'under: ')
ORDER BY benchmark, slice <> 'all', slice, metric, coalesce(seen_episodes, 0) > 0,
         CASE WHEN metric IN (${LOWER}) THEN value ELSE -value END NULLS LAST, model

-- slices: Models by slices
-- How do all models score in each slice of a benchmark, the best first?
-- No model is evaluated yet: proccorpus eval scores one, and the baselines, on episodes that training has not seen.
SELECT benchmark, slice, metric, list(model || ' ' || round(value, 3)
         ORDER BY CASE WHEN metric IN (${LOWER}) THEN value ELSE -value END, model) AS models, max(n) AS n
FROM leaderboard WHERE NOT starts_with(metric, 'under: ') AND value IS NOT NULL
GROUP BY benchmark, slice, metric ORDER BY benchmark, slice <> 'all', slice, metric

-- scored_episodes: Episodes behind the numbers
-- Of which episodes were a model's answers worst, and was the last answer right?
-- The answers of this evaluation are not stored.
SELECT eval_run, dataset, episode_index, avg(abs(prediction - target)) AS error, count(*) AS answers,
       count(prediction) AS readable, arg_max_null(prediction, frame_index) AS last,
       arg_max_null(target, frame_index) AS last_target
FROM eval_predictions GROUP BY ALL ORDER BY error DESC NULLS FIRST, dataset, episode_index

-- confusion: Instruction by video
-- What progress does a model see in a finished run, told the instruction of each task?
-- No model was asked about runs of other tasks: proccorpus eval --checks does so.
SELECT eval_run, substr(slice, 8) AS video, substr(metric, 8) AS instruction, value,
       substr(slice, 8) = substr(metric, 8) AS is_its_own
FROM eval_scores WHERE starts_with(slice, 'video: ') AND starts_with(metric, 'under: ') AND value IS NOT NULL
ORDER BY ALL

-- training_runs: Training runs
-- Which models were trained, on which release, by which recipe, and how far?
-- Nothing is trained yet: freeze a corpus (proccorpus release create NAME), then proccorpus train --recipe laptop.
SELECT r.training_run, r.recipe, r.release, r.steps, r.final_loss, p.samples, p.tokens, r.created_at,
       r.training_run AS model
FROM training_runs r LEFT JOIN (
  SELECT training_run, max(samples) AS samples, max(tokens) AS tokens FROM training_points GROUP BY 1) p
USING (training_run) ORDER BY r.created_at DESC NULLS LAST, r.training_run

-- training_losses: Losses of the newest trainings
-- How did the losses of the four newest training runs go, over one another?
-- Nothing is trained yet: freeze a corpus (proccorpus release create NAME), then proccorpus train --recipe laptop.
SELECT round(50 * step / greatest(1, steps - 1)) * 2 AS percent_done, avg(loss) FILTER (place = 1) AS newest,
       avg(loss) FILTER (place = 2) AS second, avg(loss) FILTER (place = 3) AS third, avg(loss) FILTER (place = 4) AS fourth
FROM training_points JOIN (
  SELECT training_run, steps, row_number() OVER (ORDER BY created_at DESC NULLS LAST, training_run) AS place
  FROM training_runs) USING (training_run)
WHERE place <= 4 GROUP BY percent_done ORDER BY percent_done

-- training_points: Curves of training
-- How did loss, error and speed of a training run go, step by step?
-- This run has no stored steps: only its final values are known.
SELECT step, loss, text, progress, learning_rate, gradient_norm, samples_per_s, training_run FROM (
  SELECT *, row_number() OVER (PARTITION BY training_run ORDER BY step) AS place,
         count(*) OVER (PARTITION BY training_run) AS num FROM training_points)
WHERE (place - 1) % greatest(1, num // 400) = 0 OR place = num ORDER BY training_run, step

-- signals: Grippers and hands
-- Which values hold grippers and hands, and which end of their range is open?
-- No gripper or hand was found; /t/open_warnings says where it was looked for.
FROM signals ORDER BY dataset

-- source_parts: Parts of sources
-- What does each source hold, what is it read as, and what is used for nothing?
-- No source was listed yet.
SELECT dataset, kind, name, status, use, why, shape, dtype, num_times FROM source_parts
ORDER BY dataset, status <> 'unknown', status <> 'used', use, kind, name

-- licences: Licences
-- How much is there under each licence?
-- There is nothing in this corpus yet.
SELECT coalesce(d.license, 'unknown') AS license, count(DISTINCT d.dataset) AS datasets,
       count(*) FILTER (e.status = 'ok') AS episodes,
       round(coalesce(sum(e.duration_s) FILTER (e.status = 'ok'), 0) / 3600, 3) AS hours
FROM datasets d LEFT JOIN episodes e USING (dataset) GROUP BY 1 ORDER BY hours DESC, 1

-- labels_in_force: Labels that count
-- Whose labels count, and of how many episodes?
-- No episode is labelled yet: proccorpus build.
SELECT r.annotator, a.label_run, count(*) AS episodes
FROM active_runs a LEFT JOIN label_runs r USING (label_run) GROUP BY ALL ORDER BY episodes DESC, 1, 2

-- lengths: Lengths of episodes
-- How many seconds do usable episodes take?
-- No episode has a length yet.
SELECT floor(duration_s / width) * width AS from_s, count(*) AS episodes FROM episodes, (
  SELECT greatest(1, ceil(quantile_cont(duration_s, 0.99) / 30)) AS width FROM episodes WHERE status = 'ok')
WHERE status = 'ok' AND duration_s IS NOT NULL GROUP BY ALL ORDER BY from_s

-- step_counts: Steps of episodes
-- How many steps do labelled episodes have?
-- No step is labelled yet: proccorpus build.
SELECT steps, count(*) AS episodes FROM (
  SELECT count(*) FILTER (kind = 'step') AS steps FROM active_segments GROUP BY dataset, episode_index)
GROUP BY steps ORDER BY steps

-- commonest_steps: Commonest steps
-- Which steps do most episodes have?
-- No step is labelled yet: proccorpus build.
SELECT name, count(DISTINCT (dataset, episode_index)) AS episodes
FROM active_segments WHERE kind = 'step' GROUP BY name ORDER BY episodes DESC, name

-- requests: Requests to models
-- What was asked of which model, and what did it cost?
-- No model was asked. These labels cost nothing.
SELECT stage, model, count(*) AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
       sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS cost_usd
FROM vlm_calls GROUP BY ALL ORDER BY cost_usd DESC, stage, model

-- labels_apart: Labels apart
-- In which episodes do two labels differ most, as the mean difference of their progress?
-- No episode has two labels; another annotator makes one: proccorpus build --dataset NAME --annotator vlm.
SELECT dataset, episode_index, mae AS apart, run_a, run_b FROM label_agreement
ORDER BY apart DESC, dataset, episode_index
