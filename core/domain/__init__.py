"""Nouns of the field that several rooms share; part of the ground floor.

`Episode`: one episode as the lake knows it (core.domain.episode). `Label` and its `Segment`s
(core.domain.label), what a person states of a run (core.domain.stated), and `LabelRun`: who made a
label, which one counts and how sure it has to be (core.domain.label_run).
"""
