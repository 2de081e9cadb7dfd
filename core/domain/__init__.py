"""Nouns of the field that several rooms share; part of the ground floor.

`Episode`, one episode as the lake knows it, `Label` and its `Segment`s (core.domain.label), and `LabelRun`: who made a
label, which one counts and how sure it has to be (core.domain.label_run).
"""
