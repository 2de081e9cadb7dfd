"""Training runs on their page: what is drawn, what differs, what is refused; and models by slices."""

from explorer.access import CorpusView
from explorer.pages.leaderboard import slices_matrix
from explorer.pages.training import differences


def test_configurations_are_compared_setting_by_setting():
    first = '{"a": {"b": 1, "c": [1, 2]}, "same": null}'
    second = '{"a": {"b": 1.5, "c": [1, 2]}, "same": null, "new": "x"}'
    assert differences([first, second]) == ([("a.b", ["1", "1.5"]), ("new", [None, '"x"'])], 2)
    assert differences([first]) == ([], 3)
    assert differences([]) == ([], 0)


def test_models_stand_by_slices_the_best_of_each_marked(client, furnished):
    with CorpusView(furnished).reading() as reader:
        matrix = slices_matrix(reader, "held-out (truth)", "mae")
        higher = slices_matrix(reader, "held-out (truth)", "voc")
    assert matrix["slices"] == ["all", "split=val"]
    for score_matrix, best in ((matrix, "clock"), (higher, "clock")):
        assert [run["model"] for run, _ in score_matrix["rows"]] == ["clock", "tiny-model"]
        for run, cells in score_matrix["rows"]:
            assert [c["is_best"] for c in cells] == [run["model"] == best] * 2
    assert "Models by slices" in client.get("/leaderboard?by=slices&metric=mae").text
