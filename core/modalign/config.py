"""What a user writes: pydantic models that refuse a key they do not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError


class Config(BaseModel):
    """Base of every config: frozen, strict about keys, documented by the strings under its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class AdapterConfig(Config):
    """Low-rank adapters (LoRA), Hu et al., https://arxiv.org/abs/2106.09685."""

    r: PositiveInt = 16
    """Rank."""

    alpha: PositiveFloat = 32.0
    """Scale: the adapter's output is multiplied by alpha / r."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input; off unless `disable_dropout` is false."""

    target_modules: tuple[str, ...] = ("all-linear",)
    """Names of the modules to adapt; `all-linear` takes every linear layer but the output head."""

    modules_to_save: tuple[str, ...] = ()
    """Names of further modules to train whole."""

    init: str = "default"
    """How weights start: `default` or `gaussian`. Initialisations that change the base are refused."""

    use_rslora: bool = False
    """Scale by alpha / sqrt(r) instead, https://arxiv.org/abs/2312.03732."""


class ConnectorConfig(Config):
    """What fits an encoder's embeddings to the backbone's width."""

    type: str = "mlp"
    """Registered name: `linear`, `mlp`, `query`."""

    options: dict[str, object] = Field(default_factory=dict)
    """Further settings of the connector."""


class EncoderConfig(Config):
    """An encoder by folder or id, and the connector behind it."""

    path: str
    """A folder, or an id on the model hub."""

    type: str | None = None
    """Registered name of the encoder; by default the only one for its modality, or the plugin's general one."""

    revision: str | None = None
    """Branch, tag or commit of an id on the hub."""

    connector: ConnectorConfig | None = Field(default_factory=ConnectorConfig)
    """The connector; null where its embeddings are as wide as the backbone's states."""

    options: dict[str, object] = Field(default_factory=dict)
    """Further settings of the encoder."""


class DecoderConfig(Config):
    """A generator by folder or id, behind a backbone whose states condition it."""

    path: str
    """A folder, or an id on the model hub."""

    type: str | None = None
    """Registered name of a decoder of codes, which the language model then writes itself. By default the path is a
    generator."""

    revision: str | None = None
    """Branch, tag or commit of an id on the hub."""

    connector: dict[str, object] = Field(default_factory=dict)
    """How states become what conditions its network: `queries`, `depth`, `heads`, `expansion`, `seed`."""

    options: dict[str, object] = Field(default_factory=dict)
    """Further settings of the generator: sizes of what it makes."""

    loader: str | None = None
    """Name of the loader; by default the one that claims the path."""

    train: bool = True
    """Whether its network trains. What conditions it always does. With `model.adapter` the network needs an adapter of
    its own."""

    adapter: AdapterConfig | None = None
    """Train low-rank adapters of its network instead of the network."""

    weight: NonNegativeFloat = 1.0
    """Weight of its media in the log-likelihood of a response; 0 makes them context only."""


class ModelConfig(Config):
    """A model, by folder or id, and how it is loaded."""

    path: str
    """A folder, or an id on the model hub."""

    loader: str | None = None
    """Name of the loader; by default the one that claims the path."""

    revision: str | None = None
    """Branch, tag or commit of an id on the hub."""

    trust_remote_code: bool = False
    """Run code that the model's repository brings; needs a commit as `revision` where it is an id."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; `auto` takes the checkpoint's, but float32 on a CPU."""

    attn_implementation: str | None = None
    """Attention of the library underneath; by default the fastest one that gives the right numbers here."""

    sharing: Literal["auto", "split", "mask", "off"] = "auto"
    """How responses share their prompt: split attention, a 4-D mask, or rows of their own. `auto` probes the model."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""

    chat_template: Path | None = None
    """A Jinja file to use instead of the checkpoint's chat template."""

    adapter: AdapterConfig | None = None
    """Train low-rank adapters instead of the model."""

    freeze: tuple[str, ...] | None = None
    """Parts that do not train: `encoders`, `connectors`, `backbone`, `decoders`, or one by name (`encoders.NAME`).
    By default the encoders are frozen. With an adapter everything is but heads and the connectors of `encoders`."""

    media: dict[str, dict[str, object]] = Field(default_factory=dict)
    """How media are decoded, by modality: the settings of each plugin."""

    encoders: dict[str, EncoderConfig] = Field(default_factory=dict)
    """Encoders to put before a model that has none, by modality: any tower on any language model."""

    decoders: dict[str, DecoderConfig] = Field(default_factory=dict)
    """Generators to put behind a language model, by the modality that they make."""

    options: dict[str, object] = Field(default_factory=dict)
    """Further settings of the loader."""

    @field_validator("encoders", "decoders", mode="before")
    @classmethod
    def _one_each(cls, parts: object, info: ValidationInfo) -> object:
        for name, one in parts.items() if isinstance(parts, Mapping) else ():
            if isinstance(one, list | tuple):
                msg = f"{len(one)} {info.field_name} for {name}, and nothing says which: name one of them"
                raise PydanticCustomError("several", "{msg}", {"msg": msg})
        return parts


class GenerationConfig(Config):
    """How responses are written."""

    max_new_tokens: PositiveInt = 256
    """Most tokens of a response."""

    temperature: NonNegativeFloat = 0.0
    """0 takes the most likely token; 1 samples from the model."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Sample from the smallest set of tokens with this probability."""

    top_k: NonNegativeInt = 0
    """Sample from this many tokens; 0 is all."""

    max_media: NonNegativeInt = 8
    """Most media in a response of a model that writes words and media; 0 is words alone."""

    num_inference_steps: PositiveInt | None = None
    """Steps of a diffusion or flow sampler; by default the pipeline's own."""

    guidance_scale: NonNegativeFloat | None = None
    """How strongly media are pushed towards their prompt; by default the pipeline's own."""

    batch_size: PositiveInt = 8
    """Prompts at a time."""

    seed: NonNegativeInt = 0
    """Of the sampling."""


class DataConfig(Config):
    """Rows to train or evaluate on."""

    path: str
    """A file (.jsonl, .json, .parquet, .gz), a folder of them, an id on the hub, or `oracle`, the synthetic world."""

    format: str | None = None
    """Name of the row format; by default the one that claims the columns."""

    split: str | None = None
    """Split of a data set on the hub, or of a folder (`train.jsonl`)."""

    revision: str | None = None
    """Branch, tag or commit of an id on the hub."""

    root: Path | None = None
    """Folder that media files lie in; by default the data file's own."""

    limit: PositiveInt | None = None
    """Use the first rows only."""

    preference_weights: dict[str, float] | None = Field(default=None, min_length=1)
    """How much each dimension of preference counts in which response of a pair is the better one; by default the rows'
    own order. Pairs that are even, or not judged in one of them, are left out and counted."""

    max_length: PositiveInt | None = None
    """Most tokens of prompt and response together."""

    on_too_long: Literal["error", "skip", "truncate_prompt", "truncate_response"] = "error"
    """What to do with a longer sample; skipped and truncated ones are counted."""

    on_bad_row: Literal["error", "skip"] = "error"
    """What to do with a row that cannot be used; skipped ones are listed in the run folder's bad_rows.jsonl."""

    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """With `on_bad_row: skip`, stop if more than this share of the rows is bad."""

    @field_validator("preference_weights")
    @classmethod
    def _weigh(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        for name, weight in (weights or {}).items():
            if not math.isfinite(weight) or weight == 0:
                msg = f"the weight of {name!r} must be a finite number other than 0; leave out what does not count"
                raise ValueError(msg)
        return weights
