"""Write a tiny random Qwen3-VL (some 3 MB): nothing is downloaded, its answers mean nothing.

Run with the interpreter that has vLLM: make_tiny_model.py FOLDER. Shapes, special tokens, image token counts
((height / 32) x (width / 32) per image) and the chat format are those of a real Qwen3-VL.
"""

import sys
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from training.tiny import CHAT_TEMPLATE, SPECIAL

# words for the tokenizer's merges; every other byte string still encodes
TEXT = """
The robot arm reaches for the drawer handle, grasps it and pulls the drawer open.
Move the gripper above the block, close the gripper, lift the block and place it on the plate.
Split the episode into subtasks. Answer in JSON. How far has the task progressed at each frame?
You are a helpful assistant. Describe the video. The task is done. The task is not done yet.
{"segments": [{"name": "reach", "start": 0, "end": 12}, {"name": "grasp", "start": 12, "end": 20}],
"success": true, "progress": 0.5, "confidence": 0.75, "reason": "the drawer is open", "events": []}
Frame 0: Frame 1: Frame 2: Frame 3: Frame 4: Frame 5: Frame 6: Frame 7: Frame 8: Frame 9:
Press the red button, turn the faucet, slide the window, push the plate, fold the cloth, pour water.
When does each subtask start and end? Which frames show contact, motion, failure, retry or success?
Score every step from 0 to 100 and return only the requested object without any other words.
timestamp seconds percent episode instruction system user assistant image video 0 1 2 3 4 5 6 7 8 9
"""
VOCABULARY = 600
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(TEXT.splitlines(), trainer)
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[SPECIAL[1], *SPECIAL[3:]],
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def main(folder: Path) -> None:
    words = tokenizer()
    ids = {t: words.convert_tokens_to_ids(t) for t in SPECIAL}
    patches = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images = Qwen2VLImageProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 512 * 512}, **patches, **half)
    videos = Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 512 * 512 * 16}, **patches, **half)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": -(-len(words) // 64) * 64,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 128,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 16 * 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).float().eval()
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ids["<|endoftext|>"], do_sample=False)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    Qwen3VLProcessor(
        image_processor=images, video_processor=videos, tokenizer=words, chat_template=CHAT_TEMPLATE
    ).save_pretrained(folder)
    images.save_pretrained(folder)  # as a file of its own too, as published models have it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
