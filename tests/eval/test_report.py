"""Reports: what data and models are called is text on the page, and nothing that a browser would run."""

from pathlib import Path

import numpy as np

from eval.metrics.score import mean_of
from eval.report.pages import Report, write_report
from eval.scored import Evaluated, ResampledUnit, ScoredBenchmark

HOSTILE = "<script>alert('1')</script>|{{ 7 * 7 }}"


def test_texts_of_data_are_no_markup(tmp_path: Path) -> None:
    episodes = tuple(ResampledUnit((HOSTILE, str(k)), (f"dataset {HOSTILE}",)) for k in range(3))
    scored = ScoredBenchmark(
        HOSTILE, episodes, {"mae": mean_of(np.array([0.1, 0.2, 0.4]))}, {"rows": 3}
    )
    entries = [Evaluated(name, scored, scored.scores()) for name in (HOSTILE, f"another {HOSTILE}")]
    page = write_report(
        tmp_path, Report(HOSTILE, entries, ("all", f"dataset {HOSTILE}"), [HOSTILE])
    )
    html = page.read_text()
    markdown = (tmp_path / "report.md").read_text()
    assert html.count("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;|{{ 7 * 7 }}") > 8
    assert "<script" not in html
    # A bar in a cell would end it
    rows = [line for line in markdown.splitlines() if line.startswith("| <script>")]
    assert len(rows) == 5
    assert all(r"</script>\|{{ 7 * 7 }}" in row for row in rows)
