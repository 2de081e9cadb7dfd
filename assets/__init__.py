"""Floor 7, above `pipeline`: Dagster, and nothing else.

assets.definitions is what Dagster loads: assets, jobs, schedules and sensors of assets.defs, made of the stages of
`pipeline`. assets.lib has launchers and the reports of builds that ran outside Dagster.
"""
