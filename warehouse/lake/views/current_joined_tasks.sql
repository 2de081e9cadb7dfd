-- Task texts that people have joined, because they mean the same task

SELECT dataset, task, same_as FROM joined_tasks
QUALIFY row_number() OVER (PARTITION BY dataset, task ORDER BY created_at DESC, join_id DESC) = 1
  AND task <> same_as
