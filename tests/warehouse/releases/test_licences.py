"""What the free texts of licences come to."""

from warehouse.releases.contents import classify


def test_the_flag_that_it_names_is_the_one_that_lets_it_in():
    for text in (
        "cc-by-nc-4.0",
        None,
        "other",
        "mit (default)",
        "mit (data: cc-by-nc-4.0)",
        "cc-by-nc-4.0, proprietary",
    ):
        licence = classify(text)
        names = [w for w in licence.flag.split() if w != "--allow-licence"]
        assert licence.allowed(names), text
