"""Write the rendered samples of docs/samples.md: `make demo`, then `python docs/make_sample_pages.py`.

usage: make_sample_pages.py [--workspace ./workspace]
"""

import argparse
import re
import textwrap
from pathlib import Path

import cv2
import numpy as np

from core.paths import Workspace
from warehouse.lake import Lake
from warehouse.shards.shard import Sample, read_sample

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "samples.md"
BEGIN, END = "<!-- samples: made by docs/make_sample_pages.py -->", "<!-- end of samples -->"
SIDE, GAP = 112, 4
COLUMNS = 100
BROKEN = re.compile(
    r"(?<=[^\n]{90})\n(?![A-Z0-9]|<image>)"
)  # a line break of a template within a sentence
# family, variant, form, episode of sim_long, reason
SHOWN = (
    ("procvqa_c", "progress", None, 4, None),
    ("progresslm_unanswerable", "visual", "no_think", 4, "other_task"),
)


def fitted(text: str) -> str:
    """The text of a question or an answer in lines that a page shows without scrolling."""
    entries = text.replace("}, {", "},\n{")
    return "\n".join(textwrap.fill(line, COLUMNS) for line in entries.splitlines())


def strip(sample: Sample) -> bytes:
    """The pictures of a sample side by side, eight in a row, as PNG."""
    tiles = []
    for jpeg in sample.pictures:
        bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        tile = np.full((SIDE + GAP, SIDE + GAP, 3), 255, np.uint8)
        scale = SIDE / max(bgr.shape[:2])
        small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile[: small.shape[0], : small.shape[1]] = small
        tiles.append(tile)
    per_row = min(8, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % per_row)
    rows = [np.concatenate(tiles[i : i + per_row], axis=1) for i in range(0, len(tiles), per_row)]
    ok, png = cv2.imencode(".png", np.concatenate(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert ok
    return png.tobytes()


def shown(
    lake: Lake, family: str, variant: str, form: str | None, episode: int, reason: str | None
) -> Sample:
    """The one of these samples that comes first by its id; of some other run where that one has none."""
    (sample_id, offset, split, shard, store) = lake.rows(
        'SELECT s.sample_id, l."offset", h.split, h.shard, h.store FROM samples s JOIN sample_location l '
        "USING (sample_id) JOIN shards h USING (shard) WHERE s.dataset = 'sim_long' AND family = ? AND variant = ? "
        "AND form IS NOT DISTINCT FROM ? AND reason IS NOT DISTINCT FROM ? "
        "ORDER BY s.episode_index <> ?, s.sample_id LIMIT 1",
        [family, variant, form, reason, episode],
    )[0]
    return read_sample(lake.workspace.shard(split, shard, store), offset, sample_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    lake = Lake(Workspace(parser.parse_args().workspace.resolve()), read_only=True)
    parts = []
    for family, variant, form, episode, reason in SHOWN:
        sample = shown(lake, family, variant, form, episode, reason)
        name = f"sample_{family}_{variant}{f'_{reason}' if reason else ''}.png"
        (ROOT / "docs" / "images" / name).write_bytes(strip(sample))
        row = sample.row
        told = [f"about {row['num_tokens']} tokens"]
        told += [f"{k} {row[k]}" for k in ("state", "reference") if row[k] is not None]
        told += [f"progress {row['progress']:.4f}"] if row["progress"] is not None else []
        title = ", ".join(filter(None, (f"`{family}`", variant.replace("_", " "), form, reason)))
        parts.append(
            f"### {title}\n\n"
            f"![The question's pictures](images/{name})\n\n"
            f"*Pictures in the question's order: episode {row['episode_index']}, {', '.join(told)}.*\n\n"
            f"```text\n{fitted(BROKEN.sub(' ', row['question']))}\n```\n\n"
            f"Answer:\n\n```text\n{fitted(row['answer'])}\n```\n"
        )
    text = PAGE.read_text()
    body = f"{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}"
    PAGE.write_text(
        re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: body, text, flags=re.S)
    )


if __name__ == "__main__":
    main()
