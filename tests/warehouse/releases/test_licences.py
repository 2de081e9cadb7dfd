"""What the free texts of licences come to."""

import pytest

from warehouse.releases.licences import NON_COMMERCIAL, OPEN, UNKNOWN, classify, spdx


@pytest.mark.parametrize(
    ("text", "kind", "restricted"),
    [
        ("apache-2.0 (port's card)", OPEN, ()),
        ("mit, later apache-2.0 (lerobot/ card)", OPEN, ()),
        ("apache-2.0 (converter's default), mit (raw)", OPEN, ()),
        ("apache-2.0 (converter's default)", UNKNOWN, ()),
        ("mit, apache-2.0 (converter's default)", OPEN, ()),
        ("apache-2.0 (LeRobot's default); mit (default of the upload)", UNKNOWN, ()),
        ("cc-by-nc-4.0 (converter's default), mit", NON_COMMERCIAL, ("cc-by-nc-4.0",)),
        ("gpl-3.0 (converter's default)", UNKNOWN, ("gpl-3.0",)),
        ("apache-2.0 (no default: as its authors say)", UNKNOWN, ()),  # stricter than meant, never more open
        ("Apache License 2.0", OPEN, ()),
        ("CC BY-SA 4.0", OPEN, ()),
        ("Creative Commons Attribution 4.0", OPEN, ()),
        ("CC0-1.0", OPEN, ()),
        ("cc-by-nc-sa-4.0", NON_COMMERCIAL, ("cc-by-nc-sa-4.0",)),
        ("mit, cc-by-nc-4.0", NON_COMMERCIAL, ("cc-by-nc-4.0",)),
        ("mit (data: cc-by-nc-4.0)", NON_COMMERCIAL, ("cc-by-nc-4.0",)),
        ("proprietary, non-commercial use", NON_COMMERCIAL, ("proprietary", "non-commercial-use")),
        ("not stated (benchmark's code: cc-by-nc-sa-4.0)", UNKNOWN, ("not-stated",)),
        ("mit and something else", UNKNOWN, ("something-else",)),
        ("cc-by-nd-4.0", UNKNOWN, ("cc-by-nd-4.0",)),
        ("gpl-3.0", UNKNOWN, ("gpl-3.0",)),
        ("other", UNKNOWN, ("other",)),
        ("(no words of its own)", UNKNOWN, ()),
        ("", UNKNOWN, ()),
        (None, UNKNOWN, ()),
    ],
)
def test_kinds(text: str | None, kind: str, restricted: tuple[str, ...]):
    licence = classify(text)
    assert (licence.kind, licence.restricted) == (kind, restricted)
    assert licence.allowed(()) == (kind == OPEN)


def test_what_lets_a_dataset_in():
    assert classify("CC BY-NC 4.0").allowed(["cc-by-nc-4.0"])
    assert classify("cc-by-nc-4.0").allowed(["CC BY-NC 4.0"])
    assert not classify("cc-by-nc-4.0").allowed(["unknown", "cc-by-nc-sa-4.0", "mit"])
    assert not classify("cc-by-nc-4.0, cc-by-nc-sa-4.0").allowed(["cc-by-nc-4.0"])
    assert classify("cc-by-nd-4.0").allowed(["cc-by-nd-4.0"])
    assert classify("cc-by-nd-4.0").allowed(["unknown"])
    assert classify(None).allowed(["unknown"])
    assert not classify(None).allowed(["mit"])
    assert classify("apache-2.0 (converter's default)").allowed(["unknown"])
    assert not classify("apache-2.0 (converter's default)").allowed(["apache-2.0"])


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


def test_names_are_as_spdx_writes_them():
    assert spdx("BSD 3-Clause License") == "bsd-3-clause"
    assert spdx("the Apache license, version 2.0".replace(",", "")) == "apache-2.0"
