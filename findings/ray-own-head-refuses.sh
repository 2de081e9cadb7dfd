#!/bin/sh
# Guess: `ray start --head` and a job submitted from the same account agree on whether a token is needed.
# What happens: RAY_AUTH_MODE is unset. A head asks for a token if its home has one, and any local `ray.init()` puts one
#   there; a JobSubmissionClient sends it only with RAY_AUTH_MODE=token. So a head takes jobs from its own account on
#   one day, and none once a notebook has called `ray.init()`; the error says that no token was found.
# Versions: ray[default] 2.60.0
# Output on 29 November 2026:
#   no token in the home: jobs taken
#   after ray.init(), a new head: refused (AuthenticationError)
#   after ray.init(), with RAY_AUTH_MODE=token: jobs taken
set -eu
packages="ray[default]==2.60.0"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python "$packages"
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet "$packages"
fi
mkdir home
unset RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH || true
HOME="$folder/home" RAY_TMPDIR="$folder" env/bin/python - <<'END'
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

BIN = Path(sys.executable).parent
READY_S = 240
SUBMITTING = """
import sys
from ray.job_submission import JobSubmissionClient
try:
    JobSubmissionClient(sys.argv[1]).list_jobs()
    print("jobs taken")
except Exception as error:
    print(f"refused ({type(error).__name__})")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url):
    try:
        urlopen(url, timeout=5).close()
    except HTTPError:
        return True
    except (URLError, OSError):
        return False
    return True


def client_outcome(**settings):
    """What a client of the same account meets at a new head."""
    flags = ("--port", "--dashboard-port", "--ray-client-server-port")
    ports = {flag: free_port() for flag in flags}
    command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=1"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += [f"{flag}={port}" for flag, port in ports.items()]
    url = "http:" + f"//127.0.0.1:{ports['--dashboard-port']}"
    head = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        limit = time.monotonic() + READY_S
        while not answers(f"{url}/api/version"):
            if head.poll() is not None or time.monotonic() > limit:
                sys.exit("the head does not get ready")
            time.sleep(0.5)
        client = [sys.executable, "-c", SUBMITTING, url]
        environment = os.environ | settings
        return subprocess.run(
            client, env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout.strip()
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(120)


seen = {"no token in the home": client_outcome()}
local = "import ray; ray.init(num_cpus=1, include_dashboard=False); ray.shutdown()"
subprocess.run([sys.executable, "-c", local], check=True, capture_output=True, timeout=180)
seen["after ray.init(), a new head"] = client_outcome()
seen["after ray.init(), with RAY_AUTH_MODE=token"] = client_outcome(RAY_AUTH_MODE="token")
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "no token in the home": "jobs taken",
    "after ray.init(), a new head": "refused (AuthenticationError)",
    "after ray.init(), with RAY_AUTH_MODE=token": "jobs taken",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
