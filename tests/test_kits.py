"""What tests share is made once, whichever worker comes first."""

import fcntl
import time
from threading import Thread

from tests.kits.made_corpus import made_once


def test_who_waits_while_a_folder_is_made_does_not_make_it_again(
    tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(tmp_path_factory, "getbasetemp", lambda: tmp_path)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    made = []
    place = tmp_path / "made-once" / "corpus"
    place.mkdir(parents=True)
    with place.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = Thread(target=made_once, args=(tmp_path_factory, "corpus", made.append))
        waiting.start()
        time.sleep(0.2)  # it opens the lock and waits for it
        lock.write("made")
    waiting.join()
    assert made == []
