-- Task texts that people have joined, because they mean the same task
-- same_as: text of the task that stands for it

SELECT dataset, subject AS task, value->>'same_as' AS same_as
FROM current_statements WHERE kind = 'joined_task' AND subject <> (value->>'same_as')
