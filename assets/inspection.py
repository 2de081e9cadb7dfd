"""`proccorpus inspect`: what a dataset is and what is wrong with it, without a workspace and without decoding."""

from pathlib import Path
from typing import Any

from ingest.files import Source
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.video import VideoError, probe


def inspect_source(path: Path) -> dict[str, Any]:
    """Facts and findings of a source: metadata, and the header of every video file. Raises SourceError."""
    source = Source(DatasetConfig(name="inspected", source=str(path.resolve())))
    listing = list_episodes(source)
    findings = [f.__dict__ for f in listing.findings]
    bad = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    videos: dict[str, dict[str, Any]] = {}
    for uri in sorted({v.uri for r in listing.records for v in r.videos}):
        try:
            info = probe(source.resolve(uri))
            videos[uri] = {"codec": info.codec, "fps": info.fps, "width_px": info.width_px, "height_px": info.height_px}
        except VideoError as e:
            for record in listing.records:
                hit = [v for v in record.videos if v.uri == uri]
                if hit and record.episode_index not in bad:
                    others = any(v.uri != uri for v in record.videos)
                    findings.append(
                        {
                            "reason": e.reason,
                            "detail": str(e),
                            "severity": "warning" if others else "unusable",
                            "episode_index": record.episode_index,
                            "camera": hit[0].camera,
                            "file": uri,
                        }
                    )
    rows = [r.num_rows for r in listing.records if r.num_rows is not None]
    return {
        "path": str(path),
        "format": listing.format,
        "robot": listing.robot,
        "fps": listing.fps,
        "episodes": len(listing.records),
        "rows": sum(rows),
        "shortest": min(rows, default=None),
        "longest": max(rows, default=None),
        "success_known": sum(r.success is not None for r in listing.records),
        "codecs": ", ".join(sorted({f"{v['codec']} {v['width_px']}x{v['height_px']}" for v in videos.values()})),
        "cameras": list(listing.cameras),
        "tasks": sorted({t for r in listing.records for t in r.tasks}),
        "findings": findings,
    }
