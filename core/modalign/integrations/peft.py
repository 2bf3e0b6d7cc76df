"""Low-rank adapters through peft: attached, switched off and on, saved and merged in the field's format.

Hu et al., https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Final, Protocol, cast, final

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, TaskType, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, TrainableTokensWrapper
from safetensors.torch import save_file
from torch import Tensor, nn

from modalign.config import AdapterConfig, ModelConfig
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.roles import Adapters

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"

_NAME = "default"  # peft's own name for the only adapter
_INIT: Final[dict[str, bool | str]] = {"default": True, "gaussian": "gaussian"}  # both start at B = 0
#: initialisations that subtract something from the base, so that "adapters off" would be another model
_CHANGES_BASE: Final = ("pissa", "olora", "corda", "eva", "loftq", "lora_ga", "orthogonal", "mica")


@final
class LoraAdapters(Adapters):
    """The adapters inside a module, which peft has rewritten in place.

    >>> adapters = attach(nn.Sequential(nn.Linear(2, 2)), AdapterConfig(r=1, target_modules=("0",)))
    >>> sum(p.numel() for p in adapters.parameters())
    4
    """

    def __init__(self, model: PeftModel) -> None:
        self.model = model
        # collected once: `off` runs at every step
        self._layers = [
            module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        ]

    @property
    def base(self) -> str | None:
        """The folder or id of the model the adapters belong to."""
        return self.model.peft_config[_NAME].base_model_name_or_path

    @contextmanager
    def off(self) -> Iterator[None]:
        # peft's own switch also toggles requires_grad, which would free parameters from their optimizer's view
        before = [layer._disable_adapters for layer in self._layers]
        try:
            for layer in self._layers:
                layer._disable_adapters = True
            yield
        finally:
            for layer, value in zip(self._layers, before, strict=True):
                layer._disable_adapters = value

    def parameters(self) -> Iterator[nn.Parameter]:
        seen: set[int] = set()
        for layer in self._layers:
            for name in layer.adapter_layer_names:
                held = reduce(getattr, name.split("."), layer)  # of single rows of a table, a path
                for parameter in cast(nn.Module, held).parameters():
                    if id(parameter) not in seen:
                        seen.add(id(parameter))
                        yield parameter

    def save(self, folder: Path) -> None:
        """Write what `PeftModel.from_pretrained` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self.model, adapter_name=_NAME, save_embedding_layers=False)
        save_file(
            {name: value.detach().cpu().clone().contiguous() for name, value in state.items()},
            folder / WEIGHTS,
            metadata={"format": "pt"},
        )
        config = copy.deepcopy(self.model.peft_config[_NAME])
        config.inference_mode = True
        if isinstance(config, LoraConfig) and isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # a set's order differs from process to process
        config.save_pretrained(str(folder))

    def exported(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """The adapters' weights, by the names their layers have in the module itself, and their settings."""
        state = get_peft_model_state_dict(self.model, adapter_name=_NAME, save_embedding_layers=False)
        named = {name.removeprefix("base_model.model."): value.detach().cpu().clone() for name, value in state.items()}
        config = self.model.peft_config[_NAME].to_dict()
        return named, {
            name: sorted(map(str, value)) if isinstance(value, set) else value for name, value in config.items()
        }

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """The state of the whole model with the adapters folded in, under the names it had without them.

        Nothing in the model changes, so training can go on.
        """
        model = cast("nn.Module", self.model.base_model.model)
        state = model.state_dict()
        for prefix, layer in _wrapped(model):
            inside = {name: state.pop(name) for name in list(state) if name.startswith(prefix + ".")}
            if isinstance(layer, TrainableTokensWrapper):
                table = layer.token_adapter
                held = {name: one.detach() for name, one in cast(nn.Module, table.base_layer).named_parameters()}
                held["weight"] = table.get_merged_weights([_NAME]).detach()
                state |= {f"{prefix}.{name}": one for name, one in held.items()}
                continue
            kept = (
                f"{prefix}.base_layer." if isinstance(layer, BaseTunerLayer) else f"{prefix}.modules_to_save.{_NAME}."
            )
            plain = {f"{prefix}.{name[len(kept) :]}": value for name, value in inside.items() if name.startswith(kept)}
            if isinstance(layer, LoraLayer):
                weight = plain[f"{prefix}.weight"]
                delta = cast("Callable[[str], Tensor]", layer.get_delta_weight)(_NAME)
                # variants (DoRA) and biases add more to a layer than the product of two matrices
                more = bool(getattr(layer, "lora_variant", None)) or bool(getattr(layer, "lora_bias", {}).get(_NAME))
                if more or weight.shape != delta.shape or not weight.is_floating_point():
                    raise ModelError(
                        "these weights cannot take their adapter in",
                        where=prefix,
                        got=f"{weight.dtype} {(*weight.shape,)}" + (", a variant of LoRA" if more else ""),
                        fix="save without merging; then merge with peft itself",
                    )
                # fp32: in bf16 most of a small update is rounded away term by term
                plain[f"{prefix}.weight"] = (weight.float() + delta.float()).to(weight.dtype)
            state |= plain
        return state


def attach(
    module: nn.Module,
    config: AdapterConfig,
    *,
    base: str | None = None,
    outside: Sequence[str] = (),
    tokens: Sequence[int] = (),
    seed: int = 0,
) -> LoraAdapters:
    """Add low-rank adapters to a module in place, and freeze everything else.

    base: the folder or id that the saved adapter will name.
    outside: paths of modules that `all-linear` leaves alone.
    tokens: ids whose embeddings train with them, and whose rows of the output head.
    seed: of their start; the caller's random state is untouched.
    """
    if config.init not in _INIT:
        known = config.init.lower().startswith(_CHANGES_BASE)
        raise ConfigError(
            f"adapters cannot start as {config.init!r}" + (", which changes the base model" if known else ""),
            where="adapter.init",
            got=config.init,
            fix=f"use {' or '.join(repr(name) for name in _INIT)}: with adapters off the base must answer unchanged",
        )
    targets = config.target_modules
    settings = LoraConfig(
        r=config.r,
        lora_alpha=cast(int, config.alpha),  # a float is fine: only alpha / r is taken
        lora_dropout=config.dropout,
        target_modules=_linear(module, outside) if targets == ("all-linear",) else list(targets),
        modules_to_save=list(config.modules_to_save) or None,
        init_lora_weights=cast(bool, _INIT[config.init]),
        use_rslora=config.use_rslora,
        trainable_token_indices=_tables(module, tokens),
        task_type=TaskType.CAUSAL_LM if hasattr(module, "prepare_inputs_for_generation") else None,
    )
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        try:
            model = get_peft_model(module, settings)  # any module will do, whatever peft says
        except ValueError as error:
            names = sorted(
                {name.rpartition(".")[2] for name, one in module.named_modules() if isinstance(one, nn.Linear)}
            )
            raise ConfigError(
                f"no adapters can be put there: {error}",
                where="adapter.target_modules",
                got=targets,
                fix=f"linear layers of this model: {', '.join(names)}; or 'all-linear'",
            ) from error
    settings.base_model_name_or_path = base
    return LoraAdapters(cast(PeftModel, model))


def adapt(network: nn.Module, config: ModelConfig, *, base: str) -> LoraAdapters | None:
    """The adapters of a network outside transformers: those that the config's path holds, else those it asks for.

    base: the folder or id of the model that they belong to; the path itself where it holds none.
    """
    if config.path != base:
        return load(network, Path(config.path).expanduser())
    if config.adapter is None:
        return None
    adapter = config.adapter
    if adapter.target_modules == ("all-linear",):  # which peft knows of models of transformers only
        linear = tuple(name for name, one in network.named_modules() if isinstance(one, nn.Linear))
        adapter = adapter.model_copy(update={"target_modules": linear})
    return attach(network, adapter, base=base)


def load(module: nn.Module, folder: Path) -> LoraAdapters:
    """The adapters saved in a folder, attached to their base and ready to train on."""
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise CheckpointError(
            "this adapter has no safetensors weights",
            where=str(folder),
            got=f"{', '.join(pickled)}, which is a pickle and may run code" if pickled else "no weights",
            fix=f"load it with peft where you trust it, and save it again: it writes {WEIGHTS}",
        )
    config = PeftConfig.from_pretrained(str(folder))
    init = getattr(config, "init_lora_weights", True)
    if config.peft_type != PeftType.LORA or (isinstance(init, str) and init.lower().startswith(_CHANGES_BASE)):
        raise ModelError(
            "only LoRA adapters that leave their base unchanged can be trained on",
            where=str(folder / CONFIG),
            got=f"{config.peft_type} with init {init!r}",
            fix="merge the adapter into its model with peft, and load that",
        )
    with _quiet(), torch.random.fork_rng(devices=[]):  # peft draws a start before it reads the weights
        model = PeftModel.from_pretrained(module, str(folder), is_trainable=True)
    return LoraAdapters(model)


class _Tabled(Protocol):
    """A language model of transformers."""

    def get_input_embeddings(self) -> nn.Module: ...

    def get_output_embeddings(self) -> nn.Module | None: ...


def _tables(module: nn.Module, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The rows that train, by the names of a language model's two tables."""
    if not tokens:
        return None
    model = cast(_Tabled, module)
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    tied = last is None or last.weight is first.weight  # then peft takes the second with the first
    tables = (first,) if tied else (first, last)
    names = [name for name, one in module.named_modules() if any(one is table for table in tables)]
    return {name: list(tokens) for name in names}


def _linear(module: nn.Module, outside: Sequence[str]) -> str | list[str]:
    """What `all-linear` is: every linear layer but the output head and those below ``outside``.

    By their whole paths where something is outside: of a family with experts peft 0.21 takes the last words of the
    towers' own layers as well, and a `0` of theirs is a whole layer of the decoder.
    """
    if not outside:
        return "all-linear"  # peft leaves the output head of a transformers model out
    found = getattr(module, "get_output_embeddings", None)
    head = found() if callable(found) else None
    return [
        name
        for name, one in module.named_modules()
        if isinstance(one, nn.Linear)
        and one is not head
        and not any(name == path or name.startswith(f"{path}.") for path in outside)
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without peft 0.21's call of a property that transformers 5.23 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def _wrapped(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules peft put in, by name, outermost only."""
    return [(name, one) for name, one in model.named_modules() if _is_peft(one)]


def _is_peft(module: nn.Module) -> bool:
    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
