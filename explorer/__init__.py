"""Floor 4, beside `training`: the corpus in a browser, read-only but for what people say
in it.

The server makes pages from the lake: each module of explorer.pages has a `router`.
`LakeReader` (explorer.access) reads, `EpisodeSelection` (explorer.selection) chooses
episodes, `Facet` (explorer.index) is what they are chosen by.
"""
