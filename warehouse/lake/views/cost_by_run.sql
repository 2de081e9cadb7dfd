-- Calls, tokens and money of each label run
-- calls: requests sent
-- prompt_tokens: tokens of all questions
-- completion_tokens: tokens of all answers
-- latency_s: time summed over calls
-- cost_usd: cost of all calls

SELECT label_run, dataset, stage, count(*) AS calls, sum(prompt_tokens) AS prompt_tokens,
       sum(completion_tokens) AS completion_tokens, sum(latency_s) AS latency_s, sum(cost_usd) AS cost_usd
FROM vlm_calls GROUP BY ALL
