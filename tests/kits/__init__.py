"""What tests share: writers of datasets, servers, corpora made once, ways to run the command
line."""
