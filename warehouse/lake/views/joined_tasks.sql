-- Task texts that people say mean the same task; rows are only ever added. The newest row of each text counts (view
--   current_joined_tasks)
-- join_id: id of the rows that were saved together
-- task: a task text, as in episode_facts.task
-- same_as: the text that stands for all texts of the same task; the same text: it is a task of its own again

SELECT batch AS join_id, dataset, subject AS task, value->>'same_as' AS same_as, author, created_at
FROM statements WHERE kind = 'joined_task'
