"""A model scored on runs that it was trained on, partly and wholly: report, leaderboard, commands and SQL say so."""

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from tests.kits.cli_kit import Result, called
from tests.kits.lake_kit import change
from tests.kits.laptop_kit import GREY_RECIPE
from tests.kits.made_corpus import Made, built, with_stages
from tests.kits.visitor import visit

JSON = ("--format", "json")
Run = Callable[..., Result]


@pytest.fixture
def run(own: Made, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command that succeeds, on a copy of the built corpus."""

    def command(*words: object) -> Result:
        result = called(capsys, *words, "--workspace", own.space.root)
        assert result.code == 0, result
        return result

    return command


def in_splits(own_corpus: Made, **splits: str) -> None:
    """Episodes, by the split that they are to be in, and samples and shards made anew."""
    for split, episodes in splits.items():
        for table in ("splits", "recordings"):
            change(
                own_corpus.space,
                f"UPDATE {table} SET split = '{split}' WHERE episode_index IN ({episodes})",
            )
    # Samples of another seed are new ones, which are drawn for the splits of now
    [(seed,)] = own_corpus.rows("SELECT max(snapshot) FROM stage_runs")
    samples = own_corpus.build.stages.samples.model_copy(update={"seed": seed})
    built(with_stages(own_corpus.build, samples=samples), own_corpus.space)


def seen_by_release(run: Run) -> dict[str, list[tuple[str, int | None, int | None]]]:
    """By release (model, episodes, seen_episodes) of the scores in all."""
    sql = (
        "SELECT release, model, n, seen_episodes FROM leaderboard WHERE benchmark = 'held-out' AND slice = 'all' "
        "AND metric = 'mae' ORDER BY ALL"
    )
    rows: dict[str, list[tuple[str, int | None, int | None]]] = {}
    for row in run("sql", sql, *JSON).json:
        rows.setdefault(row["release"], []).append((row["model"], row["n"], row["seen_episodes"]))
    return rows


def test_a_model_scored_on_its_own_runs(own: Made, run: Run, tmp_path: Path) -> None:
    (tmp_path / "grey.yaml").write_text(GREY_RECIPE)
    in_splits(own, train="0, 1", val="2", test_id="3, 4")
    run("release", "create", "r1", "--allow-licence", "unknown")
    model = run("train", "--recipe", tmp_path / "grey.yaml", "--release", "r1", *JSON).json[
        "training_run"
    ]
    new = run("eval", "--model", model, "--release", "r1")
    assert "trained on" not in new.out

    in_splits(own, train="2, 4", val="3", test_id="0, 1")
    run("release", "create", "wholly", "--allow-licence", "unknown")
    in_splits(own, train="0, 2", val="3", test_id="1, 4")
    run("release", "create", "partly", "--allow-licence", "unknown")
    for release, count in (("wholly", 2), ("partly", 1)):
        result = run("eval", "--model", model, "--release", release)
        first, second = result.out.split("Scored on episodes that the model was trained on")
        assert model not in first
        assert "clock" in first
        assert model in second
        report = Path(re.findall(r"report: (\S+)", result.err)[0]).read_text()
        assert f"{count} of the 2 held-out episodes were trained on" in report

    rows_by_release = seen_by_release(run)
    assert {
        release: [(n, num_seen) for name, n, num_seen in rows if name == model]
        for release, rows in rows_by_release.items()
    } == {
        "r1": [(2, 0)],
        "wholly": [(2, 2)],
        "partly": [(2, 1)],
    }
    assert {
        num_seen
        for name, _, num_seen in chain.from_iterable(rows_by_release.values())
        if name != model
    } == {0}

    # A benchmark of a release counts them too
    for benchmark in ("procvqa-id", "robustness"):
        run("eval", "--benchmark", benchmark, "--model", model, "--release", "partly", "--limit", 4)
    query = (
        f"SELECT max(seen_episodes) AS seen FROM leaderboard WHERE model = '{model}' AND release = 'partly' "
        "AND benchmark <> 'held-out' GROUP BY benchmark"
    )
    assert [row["seen"] for row in run("sql", query, *JSON).json] == [1, 1]

    with visit(own.space) as client:
        page = client.get("/leaderboard?benchmark=held-out&metric=mae").text
    *new_rows, second, third = re.findall(r"<tr>.*?</tr>", page)
    assert model in second
    assert model in third, "what says nothing of new runs stands last"
    assert sum(model in row for row in new_rows) == 1
