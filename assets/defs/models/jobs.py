"""Jobs over the assets of the second half: release, reward model, evaluation, leaderboard."""

import dagster as dg

close_job = dg.define_asset_job(
    "close",
    selection=dg.AssetSelection.groups("models"),
    description="Release, train, evaluate and rank the corpus as it is, if no test data leaks and all is sound.",
)

freeze_job = dg.define_asset_job(
    "freeze",
    selection=dg.AssetSelection.assets("release"),
    description="Freeze the corpus as it is under a name, if nothing leaks into training and all is sound.",
)

score_job = dg.define_asset_job(
    "score",
    selection=dg.AssetSelection.assets("evaluation", "leaderboard"),
    description="Score a model, beside the baselines, on the held-out episodes of a release.",
)
