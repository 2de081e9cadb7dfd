-- Runs of a dataset ($1) with a usable content, by the text that stands for their task. references: runs that show the
-- others how it goes; others: how many are none; followed: of those, how many have a label that follows a reference;
-- no_fit: those that follow none, $2 of them; by_source: the source brings steps of all runs; can_be_shown: could a run
-- be labelled like another?

-- TASKS_SQL
WITH listed AS (
  SELECT f.episode_index, coalesce(j.same_as, f.task) AS task, coalesce(len(f.steps), 0) > 0 AS has_steps
  FROM episode_facts f LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task
  WHERE f.dataset = $1 AND f.episode_index IN (SELECT episode_index FROM episode_content WHERE dataset = $1)
    AND f.episode_index NOT IN (SELECT episode_index FROM findings
      WHERE dataset = $1 AND severity = 'unusable' AND episode_index IS NOT NULL)),
shown AS (SELECT episode_index FROM current_references WHERE dataset = $1 AND content_hash IS NOT NULL),
followed AS (SELECT a.episode_index FROM active_runs a JOIN label_runs r USING (label_run)
  WHERE a.dataset = $1 AND r.annotator = 'transfer'),
no_fit AS (SELECT episode_index FROM findings WHERE dataset = $1 AND reason = 'transfer_no_fit'),
counted AS (
  SELECT task, count(*) AS runs,
         coalesce(list(episode_index ORDER BY episode_index) FILTER (episode_index IN (FROM shown)), [])
           AS "references",
         count(*) FILTER (episode_index NOT IN (FROM shown)) AS others,
         count(*) FILTER (episode_index NOT IN (FROM shown) AND episode_index IN (FROM followed)) AS followed,
         coalesce(list(episode_index ORDER BY episode_index) FILTER (
           episode_index NOT IN (FROM shown) AND episode_index IN (FROM no_fit)), []) AS no_fit,
         bool_and(has_steps) AS by_source
  FROM listed GROUP BY 1)
SELECT * REPLACE (no_fit[:$2] AS no_fit), len(no_fit) AS num_no_fit,
       runs > 1 AND NOT by_source AS can_be_shown FROM counted ORDER BY runs DESC, task
-- DONE_SQL: Of a build of a dataset, since it was started
SELECT count(*), arg_max(stage, finished_at) FROM stage_runs
WHERE dataset = ? AND chunk >= 0 AND stage <> 'episodes' AND finished_at >= ?
