"""Small text towers with a tokenizer, as folders in transformers' own format, and texts for the rings of `store_factory`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from recipes.encoders.base import quiet
from recipes.encoders.text import Reading, TextEncoder

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "two",
    "four",
    "chamber",
    "long",
    "axis",
    "ring",
    "view",
    "that",
    "beats",
    "hardly",
    "much",
    "wide",
    "high",
)
SMALL: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
CLASSES = {
    "bert": transformers.BertModel,
    "roberta": transformers.RobertaModel,
    "distilbert": transformers.DistilBertModel,
    "mpnet": transformers.MPNetModel,
    "electra": transformers.ElectraModel,
    "clip_text_model": transformers.CLIPTextModel,
}
SPELT = {
    "distilbert": {
        "dim": 16, "n_layers": 5, "n_heads": 2, "hidden_dim": 24, "vocab_size": len(WORDS), "max_position_embeddings": 24, "pad_token_id": 0,
    },
    "electra": {**SMALL, "embedding_size": 16},
}  # fmt: skip


def small_tokenizer(limit: int = 16) -> PreTrainedTokenizerFast:
    """Whole words of WORDS; a text begins with [CLS] and ends with [SEP]."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=limit, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )  # fmt: skip


def write_text(folder: Path, kind: str = "bert", limit: int = 16, **changes: Any) -> Path:
    """A random tower of `kind` with its tokenizer, written by transformers; weights scaled up so that attention matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = CLASSES[kind]
        model = own(own.config_class(**{**SPELT.get(kind, SMALL), **changes}))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(5)
    with quiet():
        model.save_pretrained(folder)
        small_tokenizer(limit).save_pretrained(folder)
    return folder


def small_text(seed: int = 0) -> TextEncoder:
    """Two blocks of width 16 over WORDS; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            **{**SMALL, "num_hidden_layers": 2}, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        model = transformers.BertModel(config, add_pooling_layer=False)
    return TextEncoder(model, small_tokenizer(), Reading(pooling="mean", length=16, sections=2), "small")


def write_narrations(labels: Path, table: Path) -> Path:
    """Texts about the rings of `store_factory.make_prepared` (labels: of 40 frames at 25 a second): two moments of each by two sources who differ in
    time and words, a step around both, and the whole. Returns `table`."""
    seen = {"A2C": "two chamber", "A4C": "four chamber", "PLAX": "long axis"}
    with labels.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "start", "end", "text", "source", "level"])
        for line in lines:
            view, much = seen[line["view"]], "much" if float(line["ef"]) > 45 else "hardly"
            for start in (0.0, 0.8):
                writer.writerow(
                    [line["video_id"], start, start + 0.7, f"a {view} ring that beats {much}", "one", "clip"]
                )
                writer.writerow(
                    [line["video_id"], start + 0.1, start + 0.8, f"{view} view beats {much}", "two", "clip"]
                )
            writer.writerow([line["video_id"], 0.0, 1.6, f"ring beats {much} {view}", "one", "keystep"])
            writer.writerow([line["video_id"], "", "", f"a {view} view", "one", "abstract"])
    return table
