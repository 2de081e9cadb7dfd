"""What one labelled run teaches a laptop model about a robot that it never saw.

    .venv/bin/python -m benchmarks.adapt --workspace workspace --model laptop-demo-0123abcd [--release demo]
        [--episodes 0 6] [--recipe laptop_oneshot] [--seeds 3] [--out FILE.json]

Adapts the model to each of these episodes of sim_long alone, and asks it before and after about all others of the
split test_ood: those of the same place (sim_long has two) and those of the other one; and about test_id, of what it
knew before. Models go into the workspace, as those of `proccorpus adapt` do.

    voc, voc_all     of clean successes, and of all runs
    mae              |progress - label|; the clock beside it knows each run's length; best constant
    mae_truth        the same against the simulator's truth
"""

import time
from collections.abc import Sequence

from benchmarks.laptop import asking, measured, summary, tell, with_seed
from core.paths import Workspace
from eval.held_out.episodes import EpisodeQuestions, held_out
from eval.held_out.evaluate import BATCH
from eval.reward.open import open_local
from pipeline.adaptation import episode_samples
from pipeline.models import model_folder
from training.recipe import load_recipe
from training.train import adapt
from warehouse.lake import open_lake
from warehouse.releases.release import get_release

DATASET = "sim_long"
SAMPLES = 240  # as proccorpus adapt has it
STACKING = range(5)  # episodes of the first place; the others are of the second


def parts(episodes: Sequence[EpisodeQuestions], adapted: int) -> dict[str, list[EpisodeQuestions]]:
    """The other episodes, by whether their place is that of the adapted one."""
    other_episodes = [e for e in episodes if e.episode.episode_index != adapted]
    is_here = [
        (e.episode.episode_index in STACKING) == (adapted in STACKING) for e in other_episodes
    ]
    return {
        "same place": [
            e for e, matches_place in zip(other_episodes, is_here, strict=True) if matches_place
        ],
        "other place": [
            e for e, matches_place in zip(other_episodes, is_here, strict=True) if not matches_place
        ],
    }


def main() -> None:
    parser = asking(__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--episodes", type=int, nargs="+", default=[0, 6])
    parser.add_argument("--recipe", default="laptop_oneshot")
    args = parser.parse_args()
    lake = open_lake(Workspace(args.workspace))
    release = get_release(lake, args.release)
    base = model_folder(lake.workspace, args.model)
    new, known_episodes = (
        held_out(lake, release, (split,), args.truth) for split in ("test_ood", "test_id")
    )
    new = [e for e in new if e.episode.dataset == DATASET]
    recipe = load_recipe(args.recipe, base)
    results: dict[str, list[dict[str, float]]] = {}
    for episode in args.episodes:
        episode_groups = parts(new, episode) | {"test_id": known_episodes}
        base_model = open_local(base, BATCH)
        for name, episodes in episode_groups.items():
            results[f"{episode} before, {name}"] = [measured(base_model, episodes, [])]
        for seed in range(args.seeds):
            start_s = time.process_time()
            samples = episode_samples(lake, DATASET, episode, SAMPLES, seed)
            run = adapt(lake, samples, f"{DATASET}-{episode:06d}", with_seed(recipe, seed))
            cost = {"cpu_s": time.process_time() - start_s, "moments": float(len(samples))}
            trained_model = open_local(run.checkpoint, BATCH)
            for name, episodes in episode_groups.items():
                results.setdefault(f"{episode} after, {name}", []).append(
                    measured(trained_model, episodes, []) | cost
                )
            print(f"episode {episode} seed {seed}: {cost}", flush=True)
    tell(args.out, {name: summary(runs) for name, runs in results.items()}, results=results)


if __name__ == "__main__":
    main()
