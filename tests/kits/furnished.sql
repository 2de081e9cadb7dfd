-- What `explorer_kit.furnish` adds to the built dataset `tiny`: a second label run, calls, scores, trainings, a finding.
SET VARIABLE now = TIMESTAMPTZ '2026-11-21 06:00:00+00';

-- A second run on episodes 0 and 1: the first run's steps with a boundary moved, another curve, words
CREATE OR REPLACE TEMP TABLE labelled AS
SELECT dataset, episode_index, 0 AS chunk, 'feedfeedfeedfeed' AS label_run, num_frames AS n
FROM episodes WHERE dataset = 'tiny' AND episode_index IN (0, 1);

INSERT INTO label_runs BY NAME
SELECT 'feedfeedfeedfeed' AS label_run, 'vlm' AS annotator, 'tiny-vlm' AS model, 'p1' AS prompt_version,
       '{"seed": 0}' AS params, 'vlm-1' AS code_version, getvariable('now') AS created_at;
INSERT INTO segments BY NAME
SELECT l.* EXCLUDE (n), s.k AS segment_index, name, [0, n // 3, n - 3][s.k + 1] AS start_frame,
       [n // 3, n - 3, n][s.k + 1] AS end_frame, true AS completed, kind, step, 2 AS num_planned, 0.9 AS confidence
FROM labelled l, (VALUES (0, 'Reach for the cube', 'step', 0), (1, 'Put it on the plate', 'step', 1),
                         (2, 'Done', 'done', NULL)) s(k, name, kind, step);
INSERT INTO progress BY NAME
SELECT l.* EXCLUDE (n), f AS frame_index, 0 AS segment_index, f / (n - 1) AS progress, f / (n - 1) / 2 AS progress_procvlm
FROM labelled l, unnest(range(n)) t(f);
INSERT INTO reasoning BY NAME
SELECT l.* EXCLUDE (n), f AS frame_index, 'At ' || f || ' the hand moves on.' AS text, false AS finished
FROM labelled l, unnest([0, n // 2]) t(f);
INSERT INTO label_quality BY NAME
SELECT l.* EXCLUDE (n), 0.0 AS length_z, 0.7 AS jump, 1.0 AS end_progress, false AS contradicts FROM labelled l;
INSERT INTO episode_labels BY NAME
SELECT l.* EXCLUDE (n), ['Reach for the cube', 'Put it on the plate'] AS plan, 'put the cube on the plate' AS task,
       0.9 AS confidence, false AS needs_review
FROM labelled l;
INSERT INTO findings BY NAME
SELECT 'tiny' AS dataset, 4 AS episode_index, 2 AS chunk, 'frames' AS stage, 'unusable' AS severity,
       'undecodable_video' AS reason, 'the video ends early' AS detail;

-- Calls: one that is kept whole, one whose reply is gone, one of a version that kept no words
INSERT INTO vlm_calls BY NAME
SELECT 'b1' AS build_id, 'tiny' AS dataset, 0 AS episode_index, 'tiny-vlm' AS model, 'p1' AS prompt_version,
       1 AS num_images, 321 AS prompt_tokens, 45 AS completion_tokens, 0.5 AS latency_s, 0.0125 AS cost_usd,
       'ok' AS status, 'feedfeedfeedfeed' AS label_run, repeat(c.word, 32) AS call_key, c.stage
FROM (VALUES ('ab', 'plan'), ('cd', 'segment'), ('ef', 'verify')) c(word, stage);

-- Two evaluations, of which the first has a matrix with an empty cell
CREATE OR REPLACE TEMP TABLE scored AS
FROM (VALUES ('eval0000failed00', 'tiny-model', 0.3), ('eval0000clock000', 'clock', 0.1)) s(eval_run, model, error);

INSERT INTO eval_runs BY NAME
SELECT eval_run, model, 'held-out (truth)' AS benchmark, 'first' AS release, '{}' AS config, 'eval-1' AS code_version,
       getvariable('now') AS created_at
FROM scored;
INSERT INTO eval_predictions BY NAME
SELECT eval_run, dataset, episode_index, f AS frame_index, f / n AS target,
       least(1.0, f / n + error * (episode_index + 1) / 2) AS prediction
FROM scored, labelled, unnest(range(0, n, 4)) t(f);
INSERT INTO eval_scores BY NAME
SELECT eval_run, slice, metric, value, value - 0.05 AS low, value + 0.05 AS high, 2 AS n, 1 AS coverage
FROM (SELECT eval_run, slice, metric, if(metric = 'mae', error, 1 - error) AS value
      FROM scored, unnest(['all', 'split=val']) s(slice), unnest(['mae', 'voc']) m(metric));
INSERT INTO eval_scores BY NAME
SELECT 'eval0000failed00' AS eval_run, 'video: ' || video AS slice, 'under: ' || words AS metric, value, value AS low,
       value AS high, 1 AS n, 1 AS coverage
FROM (VALUES ('Open it', 'Open it', 0.875), ('Open it', '<b>Shut</b> it', 0.125), ('Wait', 'Open it', 0)) c(video, words, value);

-- Two training runs of 40 steps, the first that of the evaluated model
CREATE OR REPLACE TEMP TABLE trained AS
FROM (VALUES ('tiny-model', 1e-3), ('tiny-model-slower', 3e-4)) t(training_run, rate);

INSERT INTO training_runs BY NAME
SELECT training_run, 'tiny' AS recipe, 'first' AS release, repeat('c', 64) AS config_hash, 40 AS steps,
       '{"recipe": {"name": "tiny", "optimizer": {"rate": ' || if(rate = 1e-3, '0.001', '0.0003')
       || '}, "steps": 40}, "seed": 0}' AS config,
       1 / (40 * rate) AS final_loss, 'train-1' AS code_version, getvariable('now') AS created_at
FROM trained;
INSERT INTO training_points BY NAME
SELECT training_run, step, 1 / ((step + 1) * rate) AS loss, 0.5 / (step + 1) AS progress, rate AS learning_rate,
       8 * (step + 1) AS samples, '{"reward": ' || step / 40 || '}' AS extra
FROM trained, range(40) t(step);

UPDATE episode_facts SET task = getvariable('hostile'), tasks = [getvariable('hostile')] WHERE episode_index = 2;
DELETE FROM segments WHERE episode_index = 3;
DELETE FROM progress WHERE episode_index = 3;
DELETE FROM episode_labels WHERE episode_index = 3;
DELETE FROM label_quality WHERE episode_index = 3;
DELETE FROM active_runs WHERE episode_index = 3;
