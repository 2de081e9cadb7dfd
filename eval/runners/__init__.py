"""Who answers a benchmark's questions: a local checkpoint, vLLM, or a server; each gives the same kind of reply."""
