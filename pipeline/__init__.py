"""Floor 6, above `eval`: the stages of a build, and what is up to date.

`DatasetBuild` (pipeline.config) is what a dataset is built with, `Stage` and `StageContext` (pipeline.stage) a stage
and what it is given, `Step` and `plan` (pipeline.plan) what has to run, `run_build` (pipeline.build) the loop. Each
stage is a file of pipeline.stages. The interface in Python is pipeline.corpus.
"""
