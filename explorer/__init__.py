"""The corpus in a browser: server-rendered pages over the lake, read-only but for what /review adds."""
