-- Task texts that people have joined, because they mean the same task

SELECT dataset, subject AS task, value->>'same_as' AS same_as
FROM current_statements WHERE kind = 'joined_task' AND subject <> (value->>'same_as')
