"""Floor 8, the roof: the command line, a module per topic, imported when one of its commands is run (`COMMANDS` of
cli.commands has the table).

A topic whose commands all open the lake imports it at its top. Whatever takes longer to import than the lake (video,
models, web servers, Dagster), or is needed by a few commands alone, is imported by the command that uses it: so
--help and a mistake in the options are answered at once.
"""
