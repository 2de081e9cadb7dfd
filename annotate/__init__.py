"""Floor 2, above `ingest`: measures episodes, and makes labels and samples of them. It knows neither lake nor servers.

`Signals` (annotate.motion.observe) is what annotators see of an episode, `Label`
(core.domain.label) what they answer, `LabelRun` (core.domain.label_run) who answered.
annotate.progress turns segments into progress per frame, annotate.samples labels into questions
with answers.
"""
