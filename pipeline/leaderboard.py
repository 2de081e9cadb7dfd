"""The step `leaderboard`: every evaluated model and baseline, side by side."""

from core.figures import render
from eval.report import leaderboard_figure
from pipeline.outcome import Outcome
from warehouse.lake import Lake, content_key

HEADLINES = ("voc", "mae", "score_error", "ref_error", "na_recall", "reverse_voc", "cycle_voc", "stall_drift")


def leaderboard_rows(lake: Lake) -> list[dict]:
    """Every model and baseline by benchmark and slice, best MAE first."""
    return lake.dicts(
        "SELECT benchmark, slice, model, max(value) FILTER (metric = 'voc') AS voc, "
        "max(value) FILTER (metric = 'mae') AS mae, max(value) FILTER (metric = 'end_error') AS end_error, "
        "max(n) FILTER (metric = 'mae') AS episodes FROM leaderboard "
        "WHERE slice LIKE 'split %' OR slice LIKE 'failed or stalled, %' GROUP BY ALL ORDER BY benchmark, slice, mae"
    )


def benchmark_rows(lake: Lake) -> list[dict[str, str]]:
    """Every model and baseline on each benchmark as a whole, with intervals and coverage, as text; newest run first."""
    chosen = ", ".join(
        f"max(format('{{:.3f}} ({{:.2f}}–{{:.2f}})', value, low, high)) FILTER (metric = '{m}' AND value IS NOT NULL) "
        f'AS "{m}"'
        for m in HEADLINES
    )
    rows = lake.dicts(
        f"SELECT benchmark, model, {chosen}, max(n) AS episodes, "
        "max(format('{:.0f} %', 100 * value)) FILTER (metric = 'coverage' AND value IS NOT NULL) AS coverage "
        "FROM leaderboard WHERE slice = 'all' "
        "GROUP BY benchmark, model, eval_run ORDER BY benchmark, max(created_at) DESC, model"
    )
    return [{k: "–" if v is None else str(v) for k, v in row.items()} for row in rows]


def leaderboard_step(lake: Lake) -> Outcome:
    """The leaderboard as the lake has it."""
    rows, table = leaderboard_rows(lake), benchmark_rows(lake)
    version = content_key(*(repr(sorted(row.items())) for row in (*rows, *table)))
    figure = leaderboard_figure(rows)
    picture = b"" if figure is None else render(figure)
    return Outcome("leaderboard", version, True, {"rows": len(rows)}, picture, table=tuple(table))
