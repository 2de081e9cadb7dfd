"""A server of ours ends when it is told to, whatever its threads do."""

import signal
import subprocess
import sys
import time

from core.paths import ROOT

# A route that holds a thread for a minute, as a decoder in C does
SERVER = """
import time
from fastapi import FastAPI
from core.serving import listen, serve
app = FastAPI()
app.get("/")(lambda: time.sleep(60))
serve(app, listen("127.0.0.1", 0), lambda url: print(url, flush=True))
"""


def test_it_ends_within_ten_seconds_of_sigterm() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ask = f"import urllib.request; urllib.request.urlopen({url!r})"
        with subprocess.Popen([sys.executable, "-c", ask], stderr=subprocess.DEVNULL):
            time.sleep(2)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            server.wait(30)
            assert time.monotonic() - began < 10
