"""What the small files of a checkpoint say, read and judged before anything of it is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast, final

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from modalign.config import ModelConfig
from modalign.errors import CheckpointError, ConfigError, ModelError

ADAPTER: Final = "adapter_config.json"
#: of a model type that listens and speaks: the class of its part that is trained here, which reads and answers
THINKERS: Final = MappingProxyType(
    {
        "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
        "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    }
)
DRAWS: Final = frozenset({"chameleon", "emu3", "janus"})  #: model types that draw pictures themselves, as codes
PICTURES: Final = frozenset({"image_weight", "image_ratio", "image_area"})  #: what their `model.options` may say
SPEAKS: Final = ("talker.", "token2wav.", "code2wav.")  #: how the weights of their other parts begin
COMPOSITION: Final = "modalign_composition.json"  #: which encoders a model has before it, and how media are decoded

_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_CODE: Final = "auto_map"  # names Python files of the repository; harmless to nobody who trusts it
#: keys no honest config has: the first named an attention to run (CVE-2026-4372), the second answers for the user
_HOSTILE: Final = ("_attn_implementation_internal", "trust_remote_code")
_TOKENIZERS: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
_SHA: Final = re.compile(r"[0-9a-f]{40}")
_ID: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the pieces of a model lie.

    base: folder or id of the model itself.
    folder: the folder that was asked for, which may hold adapters and heads; None for an id.
    adapter: whether that folder holds adapters.
    config: what the model's config.json says.
    """

    base: str
    folder: Path | None
    adapter: bool
    config: Mapping[str, object]

    @property
    def multimodal(self) -> bool:
        """Whether the checkpoint reads more than text."""
        return multimodal(self.config)


def local(path: str) -> Path | None:
    """The folder a path names; None where it can only be an id."""
    place = Path(path).expanduser()
    return place.resolve() if place.is_dir() else None


def claims(config: ModelConfig) -> bool:
    """Whether a path is, or may be, a language model, whatever else it reads, by its small files only."""
    folder = local(config.path)
    if folder is None:
        return _ID.fullmatch(config.path) is not None
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        task = _read(folder / ADAPTER).get("task_type")
        return task == "CAUSAL_LM"
    if not (folder / "config.json").is_file():
        return False
    said = _read(folder / "config.json")
    return causal(said) or multimodal(said)


def made(config: ModelConfig) -> tuple[str, ...]:
    """The media that a model makes which is put together by this config, or was saved in the folder that it names."""
    if config.decoders:
        return tuple(config.decoders)
    folder = local(config.path)
    if folder is None or not (folder / COMPOSITION).is_file():
        return ()
    decoders = _read(folder / COMPOSITION).get("decoders")
    return tuple(decoders) if isinstance(decoders, Mapping) else ()


def causal(config: Mapping[str, object]) -> bool:
    """Whether a config.json is a causal language model's, by transformers' own mapping or its own code."""
    code = config.get(_CODE)
    if isinstance(code, Mapping) and "AutoModelForCausalLM" in code:
        return True
    return _known(config, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def multimodal(config: Mapping[str, object]) -> bool:
    """Whether a config.json is of a model that reads media beside text, by transformers' own mapping."""
    if config.get("model_type") in THINKERS:  # whatever the class of the whole was called when it was saved
        return True
    # one that is listed as both is loaded whole: its towers are in the checkpoint
    return bool(config.get("architectures")) and _known(
        config, cast("Mapping[str, object]", MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)
    )


def _known(config: Mapping[str, object], mapping: Mapping[str, object]) -> bool:
    named = config.get("architectures")
    architectures = set(named) if isinstance(named, list) else set()
    known = mapping.get(str(config.get("model_type")))
    names = {known} if isinstance(known, str) else set(known) if isinstance(known, list | tuple) else set()
    return bool(names) and (not architectures or bool(architectures & names))


def resolve(config: ModelConfig) -> Source:
    """Where the pieces of the model are; everything that can be refused from small files is refused here."""
    known = set(config.options) <= PICTURES  # else no checkpoint has such a setting, and none is looked at
    source = _resolve(config) if known else None
    if source is None or (config.options and source.config.get("model_type") not in DRAWS):
        raise ConfigError(
            "this loader has no such settings",
            where="model.options",
            got=", ".join(config.options),
            fix=f"remove them; of {', '.join(sorted(DRAWS))} pictures have {', '.join(sorted(PICTURES))}",
        )
    return source


def _resolve(config: ModelConfig) -> Source:
    folder = local(config.path)
    if folder is None:
        _check_id(config)
        said = _remote(config)
        _scan(config.path, said, trust=config.trust_remote_code)
        return Source(base=config.path, folder=None, adapter=False, config=said)
    if (folder / ADAPTER).is_file():
        if config.adapter is not None:
            raise ConfigError(
                "this model already has adapters, and training goes on with them",
                where="model.adapter",
                got=str(folder / ADAPTER),
                fix="leave `adapter` out; or merge them first, and load the merged model",
            )
        base = _read(folder / ADAPTER).get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise ModelError(
                "this adapter does not say which model it belongs to",
                where=str(folder / ADAPTER),
                got=f"base_model_name_or_path: {base!r}",
                fix="write the folder or id of its model there",
            )
        if (place := local(base)) is not None:
            said = _check_folder(place, trust=config.trust_remote_code)
            base = str(place)
        elif _ID.fullmatch(base) is None:
            raise ModelError(
                "the model of this adapter is gone",
                where=str(folder / ADAPTER),
                got=f"no folder {base}",
                fix="write the folder or id of its model in base_model_name_or_path",
            )
        else:  # an adapter from anywhere may name any model: it is judged like one that the user names
            named = config.model_copy(update={"path": base})
            _check_id(named)
            said = _remote(named)
            _scan(base, said, trust=config.trust_remote_code)
        return Source(base=base, folder=folder, adapter=True, config=said)
    said = _check_folder(folder, trust=config.trust_remote_code)
    return Source(base=str(folder), folder=folder, adapter=False, config=said)


def _check_id(config: ModelConfig) -> None:
    if _ID.fullmatch(config.path) is None:
        raise ModelError(
            "no such model",
            where=config.path,
            got="neither a folder nor an id",
            fix="check the path, or name OWNER/NAME",
        )
    if config.trust_remote_code and _SHA.fullmatch(config.revision or "") is None:
        raise ConfigError(
            "code from a repository is run at one commit only",
            where="model.revision",
            got=config.revision,
            fix="give the full commit (40 hex digits) whose code you have read",
        )


def _check_folder(folder: Path, *, trust: bool) -> dict[str, object]:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            "this folder holds no model",
            where=str(folder),
            got="no config.json",
            fix="give the folder save_pretrained wrote",
        )
    said = _read(config)
    if not causal(said) and not multimodal(said):
        raise ModelError(
            "this is no language model that transformers knows",
            where=str(config),
            got=f"architectures {said.get('architectures')}, model_type {said.get('model_type')!r}",
            fix="use the loader of its own plugin (`modalign plugins` lists them)",
        )
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _scan(str(folder / name), _read(folder / name), trust=trust)
    _check_weights(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(
            "this model has no tokenizer",
            where=str(folder),
            got=f"none of {', '.join(_TOKENIZERS)}",
            fix="save it there: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
        )
    return said


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if names:
        raise CheckpointError(
            "these weights are pickles, and reading a pickle can run code",
            where=str(folder),
            got=", ".join(names),
            fix='convert them once, where you trust them: python -c "'
            "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
            "M.from_pretrained('FOLDER').save_pretrained('NEW'); "
            "T.from_pretrained('FOLDER').save_pretrained('NEW')\"",
        )
    found = sorted(path.name for path in folder.iterdir())
    raise ModelError(
        "this model folder has no weights",
        where=str(folder),
        got=", ".join(found),
        fix="put its *.safetensors files there",
    )


def _scan(where: str, config: Mapping[str, object], *, trust: bool) -> None:
    keys = set(_keys(config))
    for name in _HOSTILE:
        if name in keys:
            raise ModelError(
                f"a checkpoint may not say {name!r}",
                where=where,
                got="that key",
                fix="remove the key, if you trust the rest",
            )
    if _CODE in keys and not trust:
        native = str(config.get("model_type")) in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        raise ModelError(
            "this checkpoint brings code of its own",
            where=where,
            got=_CODE,
            fix="transformers knows this architecture itself: remove the key `auto_map` from a copy of the folder"
            if native
            else "read the code, then set trust_remote_code=True (with the commit as `revision` for an id)",
        )


def _keys(value: object) -> Iterator[str]:
    """Every key at every depth: a nested config is loaded like an outer one."""
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield str(key)
            yield from _keys(member)
    elif isinstance(value, list):
        for member in value:
            yield from _keys(member)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError("this file cannot be read", where=str(path), got=error, fix="download it again") from error
    if not isinstance(found, dict):
        raise ModelError(
            "this file holds no config", where=str(path), got=type(found).__name__, fix="download it again"
        )
    return found


def _remote(config: ModelConfig) -> dict[str, object]:
    try:
        return PretrainedConfig.get_config_dict(config.path, revision=config.revision)[0]
    except OSError as error:
        raise ModelError(
            f"no model {config.path!r} could be fetched",
            got=str(error).strip().splitlines()[0],
            fix="check the id and the connection, or give a folder",
        ) from error
