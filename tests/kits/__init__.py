"""What tests share: writers of datasets, stand-ins for servers, corpora made once, and ways to run the command line."""
