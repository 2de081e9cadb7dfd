"""Whole command lines for the help of commands, by the words of each command; the command line's own are at ""."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "proccorpus inspect /data/my_robot",
        "proccorpus build --source /data/my_robot --name my_robot",
        "proccorpus explore",
    ),
    "demo": ("proccorpus demo --workspace /tmp/first",),
    "inspect": (
        "proccorpus inspect samples/sim_short",
        "proccorpus inspect hf://lerobot/pusht --revision main",
        "proccorpus inspect /data/my_robot --full --format json",
        "proccorpus inspect /data/my_robot --full --report report.html",
    ),
    "build": (
        "proccorpus build --source samples/sim_short --episodes 0-4",
        "proccorpus build --source /data/my_robot --name my_robot --annotator motion",
        "proccorpus build --config configs/demo.toml --workers 2",
        "proccorpus build --dataset my_robot",
    ),
    "nightly": ("proccorpus nightly", "proccorpus nightly --config my_build.toml"),
    "status": ("proccorpus status", "proccorpus status --format json"),
    "explore": ("proccorpus explore", "proccorpus explore --release spring --no-open"),
    "sql": (
        'proccorpus sql "FROM coverage"',
        'proccorpus sql --format records "FROM episodes LIMIT 2"',
        'proccorpus sql "FROM frames" --format parquet --out frames.parquet',
        "proccorpus sql",
    ),
    "datasets": ("proccorpus datasets", "proccorpus datasets show droid"),
    "datasets show": ("proccorpus datasets show droid",),
    "show": (
        "proccorpus show faults my_robot",
        "proccorpus show current_corrections --where \"author = 'ada'\"",
        "proccorpus show similar my_robot 4",
        "proccorpus show schema episodes segments",
    ),
    "say": (
        "proccorpus say outcome my_robot 4 false",
        "proccorpus say reference my_robot 4",
        "proccorpus say correction corrections.jsonl --author ada",
        'proccorpus say acceptance my_robot camera_frozen 3,7 --comment "the wrist rests there"',
    ),
    "undo": ('proccorpus undo 3f6c2a91 --comment "the wrong run"',),
    "samples draw": ("proccorpus samples draw progresslm_sft --out samples.parquet",),
    "release": ("proccorpus release create spring", "proccorpus show releases"),
    "release create": (
        "proccorpus release create spring",
        "proccorpus release create sure --min-confidence 0.6 --allow-licence unknown",
    ),
    "release verify": ("proccorpus release verify spring",),
    "release diff": (
        "proccorpus release diff spring summer",
        "proccorpus release diff 3b93 5c80 --runs",
    ),
    "release delete": ("proccorpus release delete spring --yes",),
    "release publish": ("proccorpus release publish spring --to s3://bucket/spring --dry-run",),
    "takedown": (
        'proccorpus takedown my_robot --episodes 3,7 --reason "a face is seen"',
        "proccorpus takedown my_robot --episodes 3,7 --undo",
    ),
    "gc": ("proccorpus gc --dry-run", "proccorpus gc --keep-days 0 --yes"),
    "export": (
        "proccorpus export lerobot --out out --release spring",
        "proccorpus export lerobot --out out --dataset my_robot --without camera_frozen",
        "proccorpus export weights --out out --dataset my_robot --set chunk_size=50",
        "proccorpus export frame-signals --out signals.parquet --dataset my_robot",
        "proccorpus export rerun --out out --dataset my_robot --episodes 0-4",
    ),
    "import": ("proccorpus import /data/annotated --name my_robot",),
    "annotators compare": ("proccorpus annotators compare --dataset my_robot",),
    "train": (
        "proccorpus train --recipe laptop",
        "proccorpus train --recipe tiny_cpu --release spring --resume",
    ),
    "adapt": ("proccorpus adapt --dataset my_robot --episode 4 --model latest",),
    "model check": ("proccorpus model check latest",),
    "eval": (
        "proccorpus eval --benchmark held-out --model latest",
        "proccorpus eval compare a.jsonl b.jsonl --benchmark progress-bench",
    ),
    "reward": (
        "proccorpus reward --dataset my_robot --episode 4",
        'proccorpus reward run.mp4 --task "Open the drawer" --overlay run.overlay.mp4',
    ),
    "serve": ("proccorpus serve --model latest --port 8700",),
    "vlm check": (
        "proccorpus vlm check http://127.0.0.1:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct",
    ),
    "vlm serve": ("proccorpus vlm serve --model /models/Qwen3-VL-8B-Instruct",),
    "workspace create": (
        "proccorpus workspace create --catalog postgresql://me@db:5432/lake --data s3://bucket/lake",
    ),
    "doctor": ("proccorpus doctor", "proccorpus doctor --hashes", "proccorpus doctor --repair"),
    "recover": ("proccorpus recover --workspace /data/corpus",),
    "upgrade": ("proccorpus upgrade", "proccorpus upgrade --yes"),
    "ui": ("proccorpus ui --port 3000",),
}
