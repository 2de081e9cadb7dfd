"""Fetch the hand-labelled datasets from their sources: `python benchmarks/real_truth/fetch.py FOLDER [NAME ...]`.

`sources.json` has, for each dataset whose licence allows it, the repository, the commit, the folder and the sha256 of
each file. Where only some episodes are labelled, a LeRobot dataset's lists of episodes are cut down to them. Sets whose
licence is not stated are named there by their source alone.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).with_name("sources.json")
HOST = "https://github.com/"


def fetch(name: str, source: Mapping[str, Any], folder: Path, host: str = HOST) -> None:
    """Put a dataset into a folder. Raises RuntimeError: a file is not what was labelled."""
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "repository"
        _git(
            "clone",
            "--quiet",
            "--filter=blob:none",
            "--no-checkout",
            host + source["repository"],
            str(clone),
        )
        below = source["folder"]
        wanted_paths = [str(Path(below, path)) for path in source["files"]]
        _git("-C", str(clone), "checkout", "--quiet", source["commit"], "--", *wanted_paths)
        for path in source["files"]:
            target = folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clone / below / path, target)
    if episodes := source.get("episodes"):
        keep_episodes(folder / name / "meta", episodes)
    for path, sha256 in source["files"].items():
        digest = hashlib.sha256((folder / name / path).read_bytes()).hexdigest()
        if sha256 is not None and digest != sha256:
            raise RuntimeError(
                f"{name}: {path} has sha256 {digest}, labelled was {sha256}: its source has changed"
            )


def keep_episodes(meta: Path, episodes: Sequence[int]) -> None:
    """Cut the lists of a LeRobot v2 dataset down to some episodes."""
    frames = 0
    for file in (meta / "episodes.jsonl", meta / "episodes_stats.jsonl"):
        kept_lines = [
            line
            for line in file.read_text().splitlines()
            if json.loads(line)["episode_index"] in episodes
        ]
        frames = frames or sum(json.loads(line)["length"] for line in kept_lines)
        file.write_text("".join(f"{line}\n" for line in kept_lines))
    info = json.loads((meta / "info.json").read_text())
    info |= {"total_episodes": len(episodes), "total_frames": frames, "total_videos": len(episodes)}
    (meta / "info.json").write_text(json.dumps(info, indent=4))


def _git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    sources = json.loads(SOURCES.read_text())
    for name in args.names or sources:
        if name not in sources:
            sys.exit(f"no dataset {name}; there are {', '.join(sources)}")
        if "files" not in sources[name]:
            print(
                f"{name}: not fetched, its licence is not stated; source: {sources[name]['repository']}"
            )
            continue
        fetch(name, sources[name], args.folder)
        print(f"{name}: {len(sources[name]['files'])} files, {sources[name]['licence']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
