"""Hashed words."""

from training.laptop.model import hashed_text


def test_case_and_punctuation_do_not_count_and_order_does():
    assert hashed_text("Open the drawer.", 4096) == hashed_text("open THE drawer", 4096)
    assert sorted(hashed_text("a b", 4096)) != sorted(hashed_text("b a", 4096))
    assert set(hashed_text("open the drawer", 4096)) & set(hashed_text("open the door", 4096))


def test_rows_are_of_the_table_and_stay_the_same_from_process_to_process():
    assert all(0 < row < 64 for row in hashed_text("push the bar", 64))
    assert hashed_text("ab", 4096) == (607, 1827)  # the word, and <ab>: checkpoints depend on it
