"""What a corpus of 60 M frames takes, and one a thousand times as large, from unit costs that were measured.

    python -m benchmarks.plan_scale [--frames 60e6]

Each unit cost is a line of UNITS with where it comes from; each assumption a line of ASSUMED. The rest is arithmetic
that a reader can redo: change a line and run it again. docs/performance.md shows its assumptions and its plan.
"""

from dataclasses import dataclass

from benchmarks.harness import arguments, table

HOUR_S = 3600
GB = 1e9
TB = 1e12
MB = 1e6


@dataclass(frozen=True)
class Value:
    value: float
    unit: str
    what: str
    source: str


# Measured here: docs/performance.md says how, and under which load
UNITS = {
    "decode_s": Value(0.92e-3, "core s / frame", "decode 640x480 AV1", "The whole pipeline"),
    "measure_s": Value(0.93e-3, "core s / frame", "decode and measure it", "The whole pipeline"),
    "store_s": Value(
        1.47e-3, "core s / picture", "decode it again, make it smaller, JPEG", "The whole pipeline"
    ),
    "vlm_cpu_s": Value(
        3.7e-3, "core s / call", "encode pictures, send, check and store a reply", "Asking a model"
    ),
    "lake_bytes": Value(
        2.29e9 / 60e6, "bytes / frame", "Parquet of all tables, 8 samples an episode", "Size"
    ),
    "catalog_bytes": Value(7.4e6 / 800, "bytes / chunk", "of the catalog", "Size"),
    "stored_of_episode": Value(
        100, "pictures", "stored by the balanced profile", "The whole pipeline: 17 % of 600"
    ),
    "publish_s": Value(0.28, "s / publish", "one stage of one chunk, under the lock", "Size"),
    "plan_s": Value(2.6, "core s", "plan of 800 chunks, 4,020 steps", "Size"),
    "release_s": Value(
        37 / 60e6, "core s / frame", "release create, its guards and card included", "Size"
    ),
}
ASSUMED = {
    "cameras": Value(2, "", "cameras of an episode that are measured", "usual in LeRobot's data"),
    "frames_of_episode": Value(
        150, "frames", "of an episode, per camera", "60 M frames in 400,000 episodes"
    ),
    "chunk": Value(500, "episodes", "of a chunk", "the registry's default"),
    "source_bytes": Value(
        6e3, "bytes / frame", "of the source's video, per camera", "a guess; AV1, crf 30"
    ),
    "picture_bytes": Value(
        8e3,
        "bytes",
        "of a stored JPEG of 256 px",
        "a guess for real scenes; shipped ones have half",
    ),
    "calls_of_episode": Value(6, "calls", "of the five stages", "376 calls of 60 shipped episodes"),
    "prompt_tokens": Value(
        3000, "tokens / call", "pictures included", "a guess: 24 pictures at most"
    ),
    "reply_tokens": Value(200, "tokens / call", "of a reply", "a guess"),
    "prompt_tokens_s": Value(
        8000, "tokens / s", "read by one GPU with a 32B model", "a default of ours; no GPU at hand"
    ),
    "reply_tokens_s": Value(800, "tokens / s", "written by it", "the same"),
    "core_usd": Value(
        0.04, "USD / core hour", "of a rented machine", "a price to be replaced by yours"
    ),
    "gpu_usd": Value(2.5, "USD / GPU hour", "the same", "the same"),
    "store_usd": Value(0.023, "USD / GB month", "of a bucket", "the same"),
    "put_usd": Value(5e-6, "USD / request", "of writing to a bucket", "the same"),
    "busy": Value(
        0.7,
        "",
        "share of their time that cores and GPUs have work",
        "a guess: chunks of unlike length",
    ),
    "stages": Value(
        7,
        "",
        "publishes of a chunk",
        "listing, frames, demonstrations, segments, progress, samples, shards",
    ),
    "files_of_publish": Value(
        2.5, "files", "that a publish writes to the lake", "12,083 files of 4,800 publishes"
    ),
}


def plan(frames: float) -> list[tuple[str, float, str, str]]:
    """(what, number, unit, how it was reckoned) for a corpus of so many labelled frames."""
    u = {k: v.value for k, v in UNITS.items()}
    a = {k: v.value for k, v in ASSUMED.items()}
    episodes = frames / a["frames_of_episode"]
    chunks = episodes / a["chunk"]
    pictures = frames * a["cameras"]
    stored = episodes * u["stored_of_episode"]
    core_h = (pictures * u["measure_s"] + stored * u["store_s"]) / HOUR_S / a["busy"]
    calls = episodes * a["calls_of_episode"]
    call_s = a["prompt_tokens"] / a["prompt_tokens_s"] + a["reply_tokens"] / a["reply_tokens_s"]
    gpu_h = calls * call_s / HOUR_S / a["busy"]
    vlm_core_h = calls * u["vlm_cpu_s"] / HOUR_S
    source = pictures * a["source_bytes"]
    shards = stored * a["picture_bytes"]
    lake = frames * u["lake_bytes"]
    publishes = chunks * a["stages"]
    puts = publishes * a["files_of_publish"] + shards / (256 * 2**20) * 2 + chunks * 3
    kept_gb = (source + shards + lake) / GB
    return [
        ("episodes", episodes, "", "frames / frames_of_episode"),
        ("chunks", chunks, "", "episodes / chunk"),
        ("pictures measured", pictures, "", "frames * cameras"),
        ("pictures stored", stored, "", "episodes * stored_of_episode"),
        (
            "cores, labels by motion",
            core_h,
            "core hours",
            "(measured * measure_s + stored * store_s) / busy",
        ),
        ("of that, on 64 cores", core_h / 64, "hours", "core hours / 64"),
        (
            "of that, decoding alone once",
            pictures * u["decode_s"] / HOUR_S,
            "core hours",
            "measured * decode_s",
        ),
        ("money for it", core_h * a["core_usd"], "USD", "core hours * core_usd"),
        ("calls, labels by a model", calls, "calls", "episodes * calls_of_episode"),
        ("GPUs for them", gpu_h, "GPU hours", "calls * (prompt + reply times) / busy"),
        ("of that, on 8 GPUs", gpu_h / 8, "hours", "GPU hours / 8"),
        ("money for it", gpu_h * a["gpu_usd"], "USD", "GPU hours * gpu_usd"),
        ("cores that ask", vlm_core_h, "core hours", "calls * vlm_cpu_s"),
        ("raw data", source / TB, "TB", "measured * source_bytes"),
        ("shards", shards / TB, "TB", "pictures stored * picture_bytes"),
        ("lake", lake / TB, "TB", "frames * lake_bytes"),
        ("catalog", chunks * u["catalog_bytes"] / MB, "MB", "chunks * catalog_bytes"),
        ("a month's storage", kept_gb * a["store_usd"], "USD", "(raw + shards + lake) * store_usd"),
        (
            "requests that write",
            puts,
            "",
            "publishes * files_of_publish + two per shard of 256 MB, three tars a chunk",
        ),
        ("money for them", puts * a["put_usd"], "USD", "requests * put_usd"),
        ("publishes", publishes, "", "chunks * stages"),
        (
            "the lock's time",
            publishes * u["publish_s"] / HOUR_S,
            "hours",
            "publishes * publish_s, one after another",
        ),
        ("a plan of everything", u["plan_s"] * chunks / 800, "core s", "plan_s, by chunks"),
        ("a release", u["release_s"] * frames / HOUR_S, "core hours", "frames * release_s"),
    ]


def number(x: float) -> str:
    """Three figures that count."""
    if x == 0:
        return "0"
    if abs(x) >= 1000:
        return f"{float(f'{x:.3g}'):,.0f}"
    return f"{x:.3g}"


def values(title: str, plan_values: dict[str, Value]) -> None:
    rows = [
        [f"`{k}`", f"{number(v.value)} {v.unit}", v.what, v.source] for k, v in plan_values.items()
    ]
    table([title, "value", "what", "from"], rows)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--frames", type=float, default=60e6)
    args = parser.parse_args()
    values("measured", UNITS)
    values("assumed", ASSUMED)
    small = plan(args.frames)
    large = plan(1000 * args.frames)
    table(
        [
            "",
            f"{number(args.frames)} frames",
            f"{number(1000 * args.frames)} frames",
            "reckoned as",
        ],
        [
            [description, f"{number(n)} {unit}", f"{number(large_value)} {unit}", formula]
            for (description, n, unit, formula), (_, large_value, _, _) in zip(
                small, large, strict=True
            )
        ],
    )


if __name__ == "__main__":
    main()
