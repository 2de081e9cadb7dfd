"""Which recording an address holds after a listing: by files, rows or bytes, by a part of the rows, by its name."""

import pytest

from ingest.recordings import Address, Fingerprint, KnownRecording, Placement, place

# Recordings that were there: `gone` left, `still` moves in none of its rows
ROWS = {name: Fingerprint(30, rows=name, sketch=tuple(range(k, k + 9))) for k, name in
        ((0, "a"), (100, "b"), (200, "c"), (300, "gone"))} | {"still": Fingerprint(30)}  # fmt: skip
ROWS["film"] = Fingerprint(30, moments={"top": tuple(range(8))})
KNOWN = [
    KnownRecording(
        name, "arm", k, f"episode_{k}", name != "gone", f"files of {name}", fingerprint=fp
    )
    for k, (name, fp) in enumerate(ROWS.items())
]
PART = Fingerprint(20, rows="cut", sketch=ROWS["a"].sketch[:5])
OTHER = Fingerprint(30, rows="other", sketch=(900, 901, 902))


def placed(**addresses: Fingerprint | str) -> dict[str, str]:
    read = {f"episode_{name[1:]}": contents for name, contents in addresses.items()}
    listed = [
        Address(name, contents if isinstance(contents, str) else "new")
        for name, contents in read.items()
    ]

    def fingerprint(name: str) -> Fingerprint:
        contents = read[name]
        assert not isinstance(contents, str), "rows of files that did not change are read"
        return contents

    formers = {recording.source_id: recording for recording in KNOWN}
    placements = place(formers, KNOWN, listed, fingerprint)
    return {name[len("episode_") :]: said(placement) for name, placement in placements.items()}


def said(placement: Placement) -> str:
    if placement.known:
        return placement.known.recording + ("" if placement.is_sure else "?")
    if placement.resembles:
        return f"new like {placement.resembles.recording}"
    return "new"


@pytest.mark.parametrize(
    ("addresses", "holds"),
    [
        ({"_0": "files of a", "_1": "files of b"}, {"0": "a", "1": "b"}),
        # the first is deleted, and the others move up
        ({"_0": ROWS["b"], "_1": ROWS["c"]}, {"0": "b", "1": "c"}),
        ({"_0": ROWS["b"], "_1": ROWS["a"]}, {"0": "b", "1": "a"}),
        # one comes back, by its rows or its files
        ({"_0": ROWS["gone"], "_7": ROWS["a"]}, {"0": "gone", "7": "a"}),
        ({"_3": "files of gone"}, {"3": "gone"}),
        # of two copies the first is it
        ({"_7": ROWS["a"], "_8": ROWS["a"]}, {"7": "a", "8": "new"}),
        # a part of the rows, and other rows under the name
        ({"_0": PART, "_7": OTHER}, {"0": "new like a", "7": "new"}),
        ({"_1": PART, "_0": OTHER}, {"0": "new", "1": "new like a"}),
        ({"_0": OTHER}, {"0": "new like a"}),
        # nothing to compare: the pictures have to tell
        ({"_4": Fingerprint(30)}, {"4": "still?"}),
        ({"_7": Fingerprint(30)}, {"7": "new"}),
        # the pictures tell: two look like the same one, other ones are of another, one stays where its files are
        ({"_5": ROWS["film"], "_7": ROWS["film"]}, {"5": "new like film", "7": "new like film"}),
        ({"_5": Fingerprint(30, moments={"top": (2**64 - 1,) * 8})}, {"5": "new"}),
        ({"_7": ROWS["film"], "_5": "files of film"}, {"7": "new", "5": "film"}),
    ],
)
def test_an_address_holds(addresses, holds):
    assert placed(**addresses) == holds
