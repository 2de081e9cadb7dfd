"""The ground floor: what every room shares. It imports no other room.

`TABLES` (core.tables) and `VIEWS` (warehouse.lake.views) describe the lake, `Workspace`
(core.paths) a corpus on disk, `UserError` and `FailedError` (core.errors) what goes wrong.
`ANNOTATORS` (core.annotators) and `METRICS` (core.metrics) are the two lists that other rooms
follow. `Episode` and `Label` (core.domain): what is known, and said, of an episode. core.files
writes files whole, core.wall limits code that decodes untrusted files.
"""
