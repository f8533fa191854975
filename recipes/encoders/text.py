"""Text towers: transformers' text encoders behind one interface, words in, one vector out."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from domains.errors import ConfigError, ModelError
from domains.schema import Strict, parse
from recipes.config import TextSettings
from recipes.encoders.adapt import adapt
from recipes.encoders.base import quiet
from recipes.encoders.loading import check_weights, find_folder, load_model, read_config, read_json
from recipes.encoders.words import vocabulary

TINY_TEXT = "vfm-tiny-text"
CAUSAL = ("clip", "clip_text_model")  # a token sees those before it, and the last one has seen all
SUPPORTED = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "electra", *CAUSAL)
TEXT_FILE = "vfm_text.json"
TEXT = "text"  # folder of a run that holds its tower
NOTHING = -1  # in the place of a token where there is none
SECTIONS = 4
# Where transformers' classes keep what is the same in all of them.
BLOCKS = ("encoder.layer", "transformer.layer", "encoder.layers")
NORM = "final_layer_norm"
LAST = 4  # layers that pooling last4 sums

Pooling = Literal["mean", "cls", "last4", "eos"]


class Reading(Strict):
    """How a tower reads: belongs to it and is saved with it (`vfm_text.json`). See `recipes.config.TextSettings`."""

    pooling: Pooling
    length: PositiveInt
    sections: PositiveInt = SECTIONS


class Reader:
    """Words -> numbers of tokens, section by section. Cheap to send to loader processes.

    A text that is longer than `reading.length` tokens (with those that begin and end a text) is cut into sections of that length; what is beyond
    `reading.sections` of them is left out.
    """

    def __init__(self, tokenizer: Any, reading: Reading) -> None:
        self.tokenizer, self.reading = tokenizer, reading

    def tokens(self, text: str) -> Tensor:
        """One text -> (S, L) int64, NOTHING where there is none; (1, 1) for a text without a word."""
        if not text.strip():
            return torch.full((1, 1), NOTHING)
        read = self.tokenizer(text, truncation=True, max_length=self.reading.length, return_overflowing_tokens=True)
        return padded([torch.tensor(section) for section in read["input_ids"][: self.reading.sections]])

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(K, S, L) int64: S sections of at most L tokens of each text, as many as the longest has; NOTHING where there is none."""
        return padded([self.tokens(text) for text in texts])


def padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of as many dimensions (a, b, ...) -> (len(tensors), most a, most b, ...), filled up with NOTHING."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    joined = tensors[0].new_full((len(tensors), *shape), NOTHING)
    for place, tensor in zip(joined, tensors, strict=True):
        place[tuple(slice(size) for size in tensor.shape)] = tensor
    return joined


class TextEncoder(nn.Module):
    """A transformers text model, seen as tokens in, one vector a text out.

    Attributes
        model: the transformers module, trained in place. tokenizer: its tokenizer.
        reading: pooling, tokens of a section, sections of a text.
        width: D, channels of the vector. kind: the transformers `model_type`. source: where its weights came from, as the user named it.
        random_start: True while its weights are those it was born with.
    """

    def __init__(self, model: Any, tokenizer: Any, reading: Reading, source: str = "") -> None:
        super().__init__()
        self.model, self.tokenizer, self.reading, self.source = model, tokenizer, reading, source
        self.kind: str = model.config.model_type
        self.width: int = model.config.hidden_size
        self.random_start = False
        # peft's wrapper of `model` (mode lora). In a tuple, so that its parameters are not counted a second time.
        self.adapter: tuple[Any, ...] = ()
        for parameter in self.unused():
            parameter.requires_grad_(False)

    @property
    def reader(self) -> Reader:
        """What turns words into the tokens that this tower knows."""
        return Reader(self.tokenizer, self.reading)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""
        for name in BLOCKS:
            holder: Any = self.model
            for part in name.split("."):
                holder = getattr(holder, part, None)
            if isinstance(holder, nn.ModuleList):
                return holder
        raise ModelError(f"a model of type '{self.kind}' without blocks", where=self.source)

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm after the last block, None for models that have it within their blocks."""
        norm: nn.Module | None = getattr(self.model, NORM, None)
        return norm

    @property
    def lora_targets(self) -> str:
        """Regular expression of the attention and MLP linear layers of the blocks, for peft."""
        layers = r"(.*\.)?layers?\.\d+\."
        names = r"query|key|value|dense|[qkv]_proj|out_proj|[qkv]_lin|out_lin|lin[12]|fc[12]|[qkvo]"
        return rf"{layers}(.*\.)?({names})"

    def unused(self) -> Iterator[nn.Parameter]:
        """Parameters that the model's files hold and `forward` has no use for. They are never trained."""
        skipped = ("pooler.", f"{NORM}.") if self.reading.pooling == "last4" else ("pooler.",)
        for name, parameter in self.model.named_parameters():
            if name.startswith(skipped):
                yield parameter

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (..., S, L) int64, NOTHING where there is none -> (..., D): the mean of the vectors of a text's sections; 0 for no text."""
        flat = tokens.flatten(0, -2)
        there = flat >= 0
        each = self.pool(flat, there).unflatten(0, tokens.shape[:-1])
        present = there.any(dim=-1).view(*tokens.shape[:-1], 1).to(each.dtype)
        return (each * present).sum(dim=-2) / present.sum(dim=-2).clamp_min(1)

    def words(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (..., S, L) -> what is said of each token in its section (..., S * L, D), and which of them there are (..., S * L) bool."""
        flat = tokens.flatten(0, -2)
        hidden, _ = self.read(flat, flat >= 0)
        return hidden.unflatten(0, tokens.shape[:-1]).flatten(-3, -2), (tokens >= 0).flatten(-2)

    def read(self, tokens: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Sections (P, L), and where they have a token -> what is said of each token (P, L, D), and which of them attention saw (P, L) bool."""
        first = torch.zeros_like(there)
        first[:, 0] = True
        seen = there | first  # attention over nothing is not a number
        pooling = self.reading.pooling
        pad = self.tokenizer.pad_token_id
        # As a matrix, and not as transformers would have it: to make one it looks at values, and waits for the device.
        mask = seen[:, None, None, :].expand(-1, 1, seen.shape[1], -1)
        if self.kind in CAUSAL:
            mask = mask.tril()
        if self.model.config._attn_implementation != "sdpa":
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
        ids = tokens.masked_fill(~there, pad)
        out = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=pooling == "last4")
        if pooling == "last4":
            hidden = torch.stack(out.hidden_states[-LAST:]).sum(dim=0)
        else:
            hidden = out.last_hidden_state
        return hidden, seen

    def pool(self, tokens: Tensor, there: Tensor) -> Tensor:
        """Sections (P, L), and where they have a token -> (P, D), as `reading.pooling` says. What is said of an empty section means nothing."""
        hidden, seen = self.read(tokens, there)
        pooling = self.reading.pooling
        if pooling == "cls":
            first_one: Tensor = hidden[:, 0]
            return first_one
        if pooling == "eos":
            last = seen.sum(dim=1) - 1
            end: Tensor = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)
            return end
        weight = seen.unsqueeze(-1).to(hidden.dtype)
        mean: Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return mean

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Words -> (K, D), on the device of the tower; 0 for a text without a word."""
        device = next(self.model.parameters()).device
        vectors: Tensor = self(self.reader(texts).to(device))
        return vectors

    def save(self, folder: Path) -> None:
        """Write transformers' own files and the tokenizer's, plus `vfm_text.json`; `AutoModel` and `AutoTokenizer` load them without vfm. LoRA is
        merged into the weights that are written."""
        folder.mkdir(parents=True, exist_ok=True)
        model = copy.deepcopy(self.adapter[0]).merge_and_unload() if self.adapter else self.model
        with quiet():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        about = {"kind": self.kind, **self.reading.model_dump(mode="json")}
        (folder / TEXT_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def open_text(
    name: str | Path,
    *,
    pooling: str = "auto",
    length: int | None = None,
    sections: int | None = None,
    dropout: float = 0.0,
    online: bool = False,
    seed: int = 0,
) -> TextEncoder:
    """The text tower `name`: vfm-tiny-text, a local folder (model and tokenizer), a vfm run (`run/text`), or a hub name.

    pooling, length, sections: see `recipes.config.TextSettings`. Nothing is fetched unless `online`. `seed` draws the weights of vfm-tiny-text.
    Raises ModelError: no such model, no weights, no tokenizer, another kind of model; ConfigError for a length that it does not take.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked
    name = str(name)
    if name == TINY_TEXT and not Path(name).is_dir():
        tower = tiny_text(seed)
        tower.reading = reading_of(tower.kind, {}, pooling, length, sections, limit_of(tower.model, tower.tokenizer))
        return tower
    folder = find_folder(name, online, part=TEXT, built_in=TINY_TEXT)
    kind = read_config(folder, SUPPORTED, TINY_TEXT)["model_type"]
    weights = check_weights(folder)
    tokenizer = load_tokenizer(folder)
    model_class = _class_of(kind)
    model = load_model(model_class, folder, weights, config=_without_dropout(model_class, folder, dropout))
    if len(tokenizer) > model.config.vocab_size:
        what = f"the tokenizer has {len(tokenizer)} tokens, the model knows {model.config.vocab_size}"
        raise ModelError(what, where=folder, do="Put the model's own tokenizer there")
    saved = read_json(folder / TEXT_FILE) or {}
    reading = reading_of(kind, saved, pooling, length, sections, limit_of(model, tokenizer))
    return TextEncoder(model, tokenizer, reading, name)


def build_text(settings: TextSettings, *, online: bool = False, seed: int = 0) -> TextEncoder:
    """The text tower of a run: opened, with the parameters of its mode trainable; what is new in it follows from `seed`, and the caller's random
    state is left alone. Raises ModelError, ConfigError."""
    tower = open_text(
        settings.name, pooling=settings.pooling, length=settings.length, sections=settings.sections, dropout=settings.dropout, online=online,
        seed=seed,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapt(tower, settings, "text")
    for parameter in tower.parameters():
        parameter.lr_scale = settings.lr_scale  # type: ignore[attr-defined]  # the optimiser's groups know it
    return tower


def tiny_text(seed: int = 0) -> TextEncoder:
    """`vfm-tiny-text`: a BERT of 2 M parameters (4 blocks, width 192) over a vocabulary of its own (`words`), random weights. The same seed gives the
    same weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    known = vocabulary()
    words = Tokenizer(models.WordPiece(known, unk_token="[UNK]", max_input_chars_per_word=64))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [(token, known[token]) for token in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=around
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=128, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(known), hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, max_position_embeddings=128,
        type_vocab_size=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
    tower = TextEncoder(model, tokenizer, reading_of("bert", {}, "auto", None, None, 128), TINY_TEXT)
    tower.random_start = True
    return tower


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises ModelError where there is none that vfm can use."""
    from transformers import AutoTokenizer

    do = "Save it beside the model: tokenizer.save_pretrained(folder) writes tokenizer.json"
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (
        Exception
    ) as error:  # whatever tokenizers and transformers raise for a folder that lacks or damages its files
        raise ModelError(f"no tokenizer that can be read ({error.__class__.__name__})", where=folder, do=do) from None
    # transformers makes an empty one up where a folder holds none: special tokens, and no words
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError("no tokenizer that can be used", where=folder, do=do)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.sep_token
    if tokenizer.pad_token_id is None:
        raise ModelError("the tokenizer has no token to pad with", where=folder, do="Save one with a pad token")
    return tokenizer


def limit_of(model: Any, tokenizer: Any) -> int:
    """Tokens that a tower takes at once: what the tokenizer says, and no more than there are positions."""
    positions: int = model.config.max_position_embeddings
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= (model.config.pad_token_id or 0) + 1  # theirs are counted from behind the pad token
    return min(int(tokenizer.model_max_length), positions)


def reading_of(
    kind: str, saved: dict[str, Any], pooling: str, length: int | None, sections: int | None, limit: int
) -> Reading:
    """What was asked for, else what was saved with the tower, else what suits its kind. Raises ConfigError for more tokens than `limit`."""
    if length is not None and not 3 <= length <= limit:
        what = f"'text.length' is {length}, and the tower reads 3 to {limit} tokens at once"
        raise ConfigError(what, do="Leave it out; longer texts are read section by section (text.sections)")
    usual = "eos" if kind in CAUSAL else "mean"
    asked = {
        "pooling": saved.get("pooling", usual) if pooling == "auto" else pooling,
        "length": length or saved.get("length", limit),
        "sections": sections or saved.get("sections", SECTIONS),
    }
    return parse(Reading, asked, TEXT_FILE)


def _class_of(kind: str) -> Any:
    import transformers

    return transformers.CLIPTextModel if kind in CAUSAL else transformers.AutoModel


def _without_dropout(model_class: Any, folder: Path, dropout: float) -> Any:
    """The model's configuration, with that much dropout wherever its authors had some."""
    import transformers

    own = getattr(model_class, "config_class", None) or transformers.AutoConfig
    config = own.from_pretrained(folder, local_files_only=True)
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, int | float):
            setattr(config, name, float(dropout))
    return config
