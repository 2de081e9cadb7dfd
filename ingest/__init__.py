"""Floor 1, above `core`: reads datasets as their makers published them, and changes nothing in them.

`DatasetConfig` (ingest.registry) is a registry entry, `Source` (ingest.sources.files) the files of
a dataset, `EpisodeRecord` and `EpisodeData` (ingest.episode) an episode as listed and as read,
`Finding` something wrong with one. A format (ingest.formats) is three functions: `roots`,
`list_episodes`, `read_episode`.
"""
