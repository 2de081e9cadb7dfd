#!/bin/sh
# Guess: A MapDataset of five frames raises IndexError for frame 5, as a list does.
# What happens: It gives frame 0: indices wrap around, and a window of the next frames goes on with the beginning of the
#   data. A filter leaves the length as it was, with None in between, and a mixture ends where its first source ends.
# Versions: grain 0.2.18
# Output on 28 November 2026:
#   length: 5
#   frame 5: 0
#   frames 3 to 7: [3, 4, 0, 1, 2]
#   even frames, length: 5
#   even frames by index: [0, None, 2, None, 4]
#   even frames in a loop: [0, 2, 4]
#   mixture of five and two: [0, 100, 1, 101]
set -eu
packages="grain==0.2.18"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python $packages
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet $packages
fi
env/bin/python - <<'END'
import logging
import sys

logging.disable(logging.CRITICAL)
import grain

frames = grain.MapDataset.source(list(range(5)))
even = frames.filter(lambda frame: frame % 2 == 0)
few = grain.MapDataset.source([100, 101])
mixture = grain.MapDataset.mix([frames, few], weights=[0.5, 0.5])
seen = {
    "length": len(frames),
    "frame 5": frames[5],
    "frames 3 to 7": [frames[number] for number in range(3, 8)],
    "even frames, length": len(even),
    "even frames by index": [even[number] for number in range(5)],
    "even frames in a loop": list(even),
    "mixture of five and two": list(mixture),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "length": 5,
    "frame 5": 0,
    "frames 3 to 7": [3, 4, 0, 1, 2],
    "even frames, length": 5,
    "even frames by index": [0, None, 2, None, 4],
    "even frames in a loop": [0, 2, 4],
    "mixture of five and two": [0, 100, 1, 101],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
