"""A benchmark that several tests ask about; nobody changes its files."""

from pathlib import Path

import pytest

from eval.benchmarks.question import Question
from tests.kits.bench_kit import make_progress_bench, questions_of


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Path:
    return make_progress_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def questions(bench: Path) -> list[Question]:
    return questions_of("progress-bench", str(bench))
