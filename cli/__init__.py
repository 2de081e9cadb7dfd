"""The command line by topic. Everything heavy is imported inside the command that needs it."""
