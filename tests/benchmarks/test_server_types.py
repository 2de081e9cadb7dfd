"""The table of what servers' request classes take: read by a class of our own, in this environment."""

import sys
from pathlib import Path

from annotate.model_client.profiles import PROFILES
from benchmarks.server_types import ServerTypes, bodies, rows_of, tried


def test_a_class_says_what_it_refuses_and_does_not_know() -> None:
    server = ServerTypes(("prices==1.0",), "annotate.config", "Price")
    right = {"usd_per_gpu_hour": 1.0}
    wrong = {"usd_per_gpu_hour": -1.0, "seed": 0}
    replies = server.read(Path(sys.executable), {"a": right, "b": wrong, "c": right})
    assert replies["b"] == {"refused": "seed; usd_per_gpu_hour", "unknown": ["seed"]}
    assert rows_of(server, replies) == [
        ["prices 1.0", "Price", "a, c", "nothing", "none"],
        ["prices 1.0", "Price", "b", "seed; usd_per_gpu_hour", "seed"],
    ]


def test_each_profile_makes_a_whole_request() -> None:
    request_bodies = bodies()
    assert set(request_bodies) == {profile.name for profile in PROFILES}
    for body in request_bodies.values():
        assert {"model", "messages", "response_format", "chat_template_kwargs"} <= set(body)
        assert body["messages"][1]["content"][1]["image_url"]["url"].startswith(
            "data:image/jpeg;base64,"
        )


def test_a_package_that_cannot_be_installed_is_named(tmp_path: Path) -> None:
    server = ServerTypes(("./no-such-package",), "annotate.config", "Price", needs_vllm=False)
    rows, is_installed = tried(server, tmp_path / "environment", {})
    assert not is_installed
    assert rows[0][:4] == ["./no-such-package", "Price", "none", rows[0][3]]
    assert rows[0][3].startswith("not installed: ")
    assert "no-such-package" in rows[0][3]
