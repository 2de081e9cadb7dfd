"""A text encoder from a folder in place of hashed words: the same numbers each time, and no other encoder's."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

from tests.kits.laptop_kit import TASKS, make_release, question, recipe, scene
from training.errors import ModelError
from training.laptop.config import LaptopConfig
from training.laptop.model import load_laptop
from training.laptop.pictures import embed
from training.laptop.reading import SeenWindow, read_windows
from training.laptop.sentences import SentenceEncoder, open_sentences
from training.train import train

WORDS = ["push", "pull", "the", "bar", "curtain", "to", "right", "down", "how", "far", "is", "task", "done", "of", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of random weights, of two layers."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def opened(folder: Path) -> SentenceEncoder:
    sentences = open_sentences(LaptopConfig(encoder="grey", text_encoder=str(folder)))
    assert sentences is not None
    return sentences


def test_a_texts_numbers_do_not_depend_on_those_beside_it(folder: Path) -> None:
    sentences = opened(folder)
    assert sentences.width == 24
    alone = sentences.read([TASKS[0]])
    beside = opened(folder).read([TASKS[1], "", TASKS[0], "a bar"])
    assert torch.equal(alone[0], beside[2])
    assert alone[0].norm() == pytest.approx(24**0.5)
    assert not beside[1].any()
    assert (beside[0] - beside[2]).norm() > 0.5


def test_a_model_learns_with_it_and_is_loaded_with_no_other(folder: Path, tmp_path: Path) -> None:
    lake, release = make_release(tmp_path / "w")
    mine = tmp_path / "text"
    shutil.copytree(folder, mine)
    run = train(lake, release, recipe(laptop={"text_encoder": str(mine)}, train={"steps": 120}))
    model, encoder, _ = load_laptop(run.checkpoint)
    assert not [name for name in model.state_dict() if name.startswith(("words", "sentences"))]
    seen = embed(encoder, [scene(TASKS[0], k / 8) for k in range(8)])

    def progress(task: str) -> list[float]:
        windows = [SeenWindow(question(task), [x], seen[0]) for x in seen]
        return [a.progress for a in read_windows(model, windows)]

    own = torch.tensor(progress(TASKS[0]))
    assert (own - torch.arange(8) / 8).abs().mean() < 0.1
    assert max(progress(TASKS[1])) < 0.3

    # Another encoder in that folder, or none
    torch.manual_seed(1)
    network = BertModel.from_pretrained(mine)
    torch.nn.init.normal_(network.embeddings.word_embeddings.weight)
    network.save_pretrained(mine)
    with pytest.raises(ModelError, match="trained on another text encoder than that in"):
        load_laptop(run.checkpoint)
    shutil.rmtree(mine)
    with pytest.raises(ModelError, match="there is no folder"):
        load_laptop(run.checkpoint)


def test_what_is_no_text_encoder_is_told(tmp_path: Path) -> None:
    assert open_sentences(LaptopConfig(encoder="grey")) is None
    (tmp_path / "config.json").write_text('{"model_type": "nosuch"}')
    with pytest.raises(ModelError, match="holds no text encoder"):
        opened(tmp_path)
