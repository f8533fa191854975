"""Text towers: what is read of a text, by every kind of tower, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from text_factory import WORDS, small_tokenizer, write_text
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, CLIPConfig, CLIPModel

from domains.errors import ConfigError, ModelError
from recipes.config import TextSettings
from recipes.encoders.text import NOTHING, build_text, open_text
from recipes.encoders.words import vocabulary

TEXTS = ("a ring that beats", "two chamber view", "long axis")
KINDS = ("bert", "roberta", "distilbert", "mpnet", "electra", "clip_text_model")


def by_transformers(folder: Path, text: str, **also: bool) -> tuple[Tensor, ...]:
    """Hidden states of one text alone, without vfm and without padding."""
    read = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(input_ids=read["input_ids"], output_hidden_states=True, **also)
    return (out.last_hidden_state[0], *(hidden[0] for hidden in out.hidden_states))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_a_batch_are_what_transformers_says_of_each(kind: str, tmp_path: Path) -> None:
    tower = open_text(write_text(tmp_path / kind, kind)).eval()
    assert tower.reading.pooling == ("eos" if kind == "clip_text_model" else "mean")
    found = tower.embed(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        last = by_transformers(tmp_path / kind, text)[0]
        expected = last[-1] if kind == "clip_text_model" else last.mean(dim=0)
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-4)
    assert len(tower.blocks) == 5


@torch.no_grad()
def test_the_ways_to_pool(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "bert")
    last, *hidden = by_transformers(folder, TEXTS[0])
    ways = {"cls": last[0], "mean": last.mean(0), "eos": last[-1], "last4": sum(hidden[-4:]).mean(dim=0)}  # type: ignore[union-attr]
    for pooling, expected in ways.items():
        vector = open_text(folder, pooling=pooling).eval().embed(TEXTS)[0]
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_long_text_is_the_mean_of_its_sections(tmp_path: Path) -> None:
    tower = open_text(write_text(tmp_path / "bert"), length=6, sections=3).eval()
    long = "a ring that beats two four chamber view long axis wide"  # 4 + 4 + 3 words, between [CLS] and [SEP]
    parts = ["a ring that beats", "two four chamber view", "long axis wide"]
    tokens = tower.reader([long, "ring", ""])
    assert tokens.shape == (3, 3, 6)
    assert tokens[0, 0].tolist() == [2, *(WORDS.index(word) for word in parts[0].split()), 3]
    assert tokens[1, 0].tolist() == [2, WORDS.index("ring"), 3, NOTHING, NOTHING, NOTHING]
    assert bool((tokens[2] == NOTHING).all())
    found = tower(tokens)
    torch.testing.assert_close(found[0], tower.embed(parts).mean(dim=0))
    torch.testing.assert_close(found[1], tower.embed(["ring"])[0])
    assert found[2].tolist() == [0.0] * 16
    beyond = tower.reader([f"{long} high much {' hardly' * 9}"])
    assert beyond.shape == (1, 3, 6)  # what is beyond three sections is left out
    assert open_text(tmp_path / "bert").reading.length == 16  # the tokenizer's limit


def test_a_tower_saved_and_opened_is_the_same(tmp_path: Path) -> None:
    tower = open_text(write_text(tmp_path / "bert"), pooling="last4", length=8, sections=2).eval()
    tower.save(tmp_path / "run" / "text")
    again = open_text(tmp_path / "run").eval()  # a run folder
    assert again.reading == tower.reading
    assert again.embed(TEXTS).equal(tower.embed(TEXTS))
    other = open_text(tmp_path / "run", pooling="cls", length=5).reading  # what is asked for counts
    assert (other.pooling, other.length, other.sections) == ("cls", 5, 2)


def test_the_text_tower_of_a_whole_clip_model(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0, **small}
    CLIPModel(CLIPConfig(text_config=text, vision_config={"image_size": 8, "patch_size": 4, **small})).save_pretrained(
        tmp_path / "clip"
    )
    small_tokenizer(77).save_pretrained(tmp_path / "clip")
    tower = open_text(tmp_path / "clip")
    assert (tower.kind, tower.width, tower.reading.length, tower.reading.pooling) == ("clip_text_model", 16, 12, "eos")
    assert tower.final_norm is not None
    assert tower.embed(TEXTS).shape == (3, 16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["full", "lora", "last_k", "frozen"])
def test_what_is_trained(kind: str, mode: str, tmp_path: Path) -> None:
    settings = TextSettings(name=str(write_text(tmp_path / kind, kind)), mode=mode, last_k=1, lr_scale=0.5)  # type: ignore[arg-type]
    tower = build_text(settings)
    trained = {name for name, p in tower.named_parameters() if p.requires_grad}
    if mode != "frozen":
        tower.embed(TEXTS).square().sum().backward()
    for name, parameter in tower.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
        assert parameter.lr_scale == 0.5
    if mode == "lora":
        assert all("lora_" in name for name in trained)
        assert len(trained) >= 2 * 5 * 4  # query, key, value and more, of five blocks, A and B
    if mode == "last_k":
        assert all(".4." in name or "final_layer_norm" in name for name in trained)
        assert trained
    if mode == "full":
        assert any("embeddings" in name for name in trained)
        assert not any("pooler" in name for name in trained)


@torch.no_grad()
def test_lora_is_merged_where_it_is_saved(tmp_path: Path) -> None:
    tower = build_text(TextSettings(name=str(write_text(tmp_path / "bert")), mode="lora")).eval()
    for name, parameter in tower.named_parameters():
        if "lora_B" in name:
            parameter.add_(0.3)
    tower.save(tmp_path / "saved")
    plain = open_text(tmp_path / "saved").eval()
    assert not any("lora" in name for name, _ in plain.named_parameters())
    torch.testing.assert_close(plain.embed(TEXTS), tower.embed(TEXTS), rtol=1e-4, atol=1e-4)


def test_dropout_is_what_the_setting_says(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "bert", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    still = open_text(folder).train()
    assert still.embed(TEXTS).equal(still.embed(TEXTS))
    moving = open_text(folder, dropout=0.5).train()
    assert not moving.embed(TEXTS).equal(moving.embed(TEXTS))


def test_the_built_in_tower() -> None:
    one, two, other = open_text("vfm-tiny-text"), open_text("vfm-tiny-text"), open_text("vfm-tiny-text", seed=1)
    assert one.random_start
    words = "Left ventricle dilated"
    assert one.tokenizer.tokenize(words) == ["left", "ventricle", "dilated"]
    assert one.tokenizer.tokenize("gallbladders 34%") == ["gallbladder", "##s", "34", "%"]
    assert one.embed([words]).equal(two.embed([words]))
    assert not one.embed([words]).equal(other.embed([words]))
    known = vocabulary()
    assert len(set(known.values())) == len(known)
    assert "[UNK]" not in one.tokenizer.tokenize(
        "Zyxwvu/4711: any-word_at=all?"
    )  # letters do for what is no word of it


def test_nothing_waits_for_values(tmp_path: Path) -> None:
    for kind in ("bert", "roberta", "clip_text_model"):
        tower = open_text(write_text(tmp_path / kind, kind))
        tokens = tower.reader(TEXTS)
        assert tower.to("meta")(tokens.to("meta")).shape == (3, 16)


def test_what_is_refused(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"'text.length' is 17, and the tower reads 3 to 16 tokens"):
        open_text(folder, length=17)
    with pytest.raises(ModelError, match=r"no such text folder.*vfm-tiny-text"):
        open_text("./nothing")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match=r"no tokenizer that can be .*save_pretrained"):
        open_text(folder)
    small_tokenizer().save_pretrained(write_text(tmp_path / "few", vocab_size=9))
    with pytest.raises(ModelError, match=r"the tokenizer has 18 tokens, the model knows 9"):
        open_text(tmp_path / "few")
    (tmp_path / "run" / "encoder").mkdir(parents=True)
    (tmp_path / "run" / "config.resolved.yaml").write_text("method: videomae\n")
    with pytest.raises(ModelError, match="leaves no text"):
        open_text(tmp_path / "run")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        open_text(folder)
