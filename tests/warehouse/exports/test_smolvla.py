"""One training step of SmolVLA, weighted by our progress, on an export: the policy is tiny and made here, the code is
LeRobot's own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.paths import ROOT, Workspace
from pipeline.build import run_build
from pipeline.config import source_build
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake

LEROBOT = EXPORT_KINDS["lerobot"]

SIM_LONG = ROOT / "samples" / "sim_long"
PICTURE_PX, PATCH_PX, CHUNK = 64, 16, 20
SPECIAL = ("<|endoftext|>", "<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>")


def make_vlm(folder: Path) -> Path:
    """A folder with what SmolVLA asks of a hub: the configuration and the processor of a SmolVLM, without weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Idefics3ImageProcessor, Idefics3Processor, PreTrainedTokenizerFast, SmolVLMConfig

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator([], trainers.BpeTrainer(special_tokens=list(SPECIAL), initial_alphabet=alphabet))
    named = {"fake_image_token": SPECIAL[1], "global_image_token": SPECIAL[2], "image_token": SPECIAL[3]}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token=SPECIAL[0], eos_token=SPECIAL[4], extra_special_tokens=named
    )
    size = {"longest_edge": PICTURE_PX}
    # SmolVLM's own processor needs one more package; SmolVLA takes no more than the tokenizer from it
    processor = Idefics3Processor(Idefics3ImageProcessor(size=size, max_image_size=size), tokenizer)
    processor.save_pretrained(folder)
    text = {"model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": PICTURE_PX, "patch_size": PATCH_PX}
    config: Any = {"text_config": text, "vision_config": vision, "pad_token_id": 0}
    config = SmolVLMConfig(**config, scale_factor=2, image_token_id=3)
    config.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_one_step_of_smolvla_with_our_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_CACHE", str(tmp_path / "hf"))):
        monkeypatch.setenv(name, value)
    from lerobot.configs.types import FeatureType
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
    from lerobot.utils.collate import lerobot_collate_fn
    from lerobot.utils.feature_utils import dataset_to_policy_features
    from lerobot.utils.sample_weighting import SampleWeightingConfig, make_sample_weighter

    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [source_build(SIM_LONG, "long", None, (0, 5))], workers=1).failed
    root = tmp_path / "export"
    LEROBOT.export(Lake(space, read_only=True), Selection(allow=("unknown",)), root)

    meta: Any = LeRobotDatasetMetadata("local/test", root=root)
    features = dataset_to_policy_features(meta.features)
    torch.manual_seed(0)
    config = SmolVLAConfig(
        vlm_model_name=str(make_vlm(tmp_path / "vlm")),
        load_vlm_weights=False,
        num_vlm_layers=2,
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        resize_imgs_with_padding=(PICTURE_PX, PICTURE_PX),
        device="cpu",
        input_features={n: f for n, f in features.items() if f.type in (FeatureType.VISUAL, FeatureType.STATE)},
        output_features={n: f for n, f in features.items() if f.type is FeatureType.ACTION},
    )
    policy: Any = SmolVLAPolicy(config)
    before, _ = make_smolvla_pre_post_processors(config, meta.stats)
    times = {"action": [k / meta.fps for k in range(CHUNK)]}
    dataset: Any = LeRobotDataset("local/test", root=root, delta_timestamps=times, video_backend="pyav")
    ends = [int(meta.episodes[e]["dataset_to_index"]) for e in range(2)]
    batch = lerobot_collate_fn([dataset[k] for k in (0, 10, ends[0] - 1, ends[1] - 1)])
    assert batch is not None

    weighter = make_sample_weighter(SampleWeightingConfig(kappa=0.05), policy, torch.device("cpu"), str(root))
    assert weighter is not None
    weights, told = weighter.compute_batch_weights(batch)
    assert told["num_zero_weight"] + told["num_full_weight"] <= 4
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    trained = [p for p in policy.parameters() if p.requires_grad]
    was = [p.detach().clone() for p in trained]
    losses, _ = policy.forward(before(batch), reduction="none")
    loss = (losses * weights).sum() / len(weights)
    loss.backward()
    optimizer.step()
    assert losses.shape == (4,)
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(was, trained, strict=True))
