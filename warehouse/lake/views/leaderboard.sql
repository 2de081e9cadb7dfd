-- Scores of every evaluated model and baseline
-- release: release whose episodes were scored

SELECT r.benchmark, r.model, r.release, s.slice, s.metric, s.value, s.low, s.high, s.n, s.coverage,
       r.created_at, r.eval_run, s.seen_episodes
FROM eval_scores s JOIN eval_runs r USING (eval_run)
