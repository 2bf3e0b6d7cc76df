"""Low-rank adapters: off is the base exactly, on trains nothing but them, and peft reads what is saved."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import cast

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.config import AdapterConfig
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.integrations import peft as adapters
from modalign.integrations.peft import LoraAdapters
from modalign_text.testing import tiny_causal_lm

TOKENS = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(2))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def moved(library: PreTrainedModel, **settings: object) -> LoraAdapters:
    """Adapters that have been trained a while."""
    found = adapters.attach(library, AdapterConfig.model_validate({"r": 3, **settings}), base="the-base")
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in found.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return found


@pytest.mark.parametrize("modules", [(), ("lm_head",), ("norm",)])
def test_off_is_the_base_exactly(modules: tuple[str, ...]) -> None:
    library = tiny_causal_lm("qwen2", scale=3.0)
    base = logits(library)
    found = adapters.attach(library, AdapterConfig(r=3, modules_to_save=modules))
    assert logits(library).equal(base)  # B starts at zero
    with torch.no_grad():
        for value in found.parameters():
            value.add_(0.1)
    on = logits(library)
    with found.off():
        assert logits(library).equal(base)
        with found.off():
            assert logits(library).equal(base)
        assert logits(library).equal(base)
    assert logits(library).equal(on)
    assert not torch.allclose(on, base, atol=1e-2)


def test_off_comes_back_on_after_an_error() -> None:
    library = tiny_causal_lm("llama")
    found = moved(library)
    on = logits(library)
    with pytest.raises(RuntimeError, match="stop"), found.off():
        raise RuntimeError("stop")
    assert logits(library).equal(on)


def test_off_leaves_requires_grad_alone() -> None:
    library = tiny_causal_lm("llama")
    found = adapters.attach(library, AdapterConfig(r=2, modules_to_save=("lm_head",)))
    before = {name: value.requires_grad for name, value in library.named_parameters()}
    with found.off():
        assert {name: value.requires_grad for name, value in library.named_parameters()} == before
    mine = {id(value) for value in found.parameters()}
    assert {id(value) for value in library.parameters() if value.requires_grad} == mine


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3_text"])
def test_all_linear_takes_every_linear_layer_but_the_head(family: str) -> None:
    library = tiny_causal_lm(family)
    linear = {name for name, one in library.named_modules() if isinstance(one, nn.Linear)} - {"lm_head"}
    adapters.attach(library, AdapterConfig(r=2))
    adapted = {name.split(".lora_A")[0] for name, value in library.named_parameters() if "lora_A" in name}
    assert adapted == linear
    assert type(library.get_output_embeddings()) is nn.Linear


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "eva", "loftq", "PiSSA"])
def test_initialisations_that_change_the_base_are_refused(init: str) -> None:
    with pytest.raises(ConfigError, match=rf"{init}.*changes the base"):
        adapters.attach(tiny_causal_lm("llama"), AdapterConfig(init=init))


def test_an_unknown_initialisation_is_refused() -> None:
    with pytest.raises(ConfigError, match="'default' or 'gaussian'"):
        adapters.attach(tiny_causal_lm("llama"), AdapterConfig(init="zero"))


def test_modules_that_do_not_exist_are_named_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"query.*q_proj"):
        adapters.attach(tiny_causal_lm("llama"), AdapterConfig(target_modules=("query",)))


def test_the_start_depends_on_the_seed_only() -> None:
    def start(seed: int) -> list[Tensor]:
        torch.rand(3)
        state = torch.get_rng_state()
        found = [*adapters.attach(tiny_causal_lm("llama"), AdapterConfig(r=2, init="gaussian"), seed=seed).parameters()]
        assert torch.get_rng_state().equal(state)
        return [value.detach() for value in found]

    assert all(a.equal(b) for a, b in zip(start(0), start(0), strict=True))
    assert any(not a.equal(b) for a, b in zip(start(0), start(1), strict=True))


def test_peft_reads_what_is_saved(tmp_path: Path) -> None:
    library = tiny_causal_lm("llama", scale=3.0)
    found = moved(library, modules_to_save=("lm_head",), use_rslora=True, alpha=5.0)
    found.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    said = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (said["peft_type"], said["base_model_name_or_path"], said["inference_mode"]) == ("LORA", "the-base", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 reads a property transformers 5.23 renamed
        theirs = PeftModel.from_pretrained(tiny_causal_lm("llama", scale=3.0), str(tmp_path))
    assert logits(theirs).equal(logits(library))


def test_loaded_adapters_go_on_training(tmp_path: Path) -> None:
    library = tiny_causal_lm("llama", scale=3.0)
    moved(library).save(tmp_path)
    again = tiny_causal_lm("llama", scale=3.0)
    base = logits(again)
    found = adapters.load(again, tmp_path)
    assert found.base == "the-base"
    assert logits(again).equal(logits(library))
    assert all(value.requires_grad for value in found.parameters())
    with found.off():
        assert logits(again).equal(base)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("modules", [(), ("norm",)])
def test_merged_weights_are_one_model_and_leave_this_one_alone(tied: bool, modules: tuple[str, ...]) -> None:
    library = tiny_causal_lm("llama", scale=3.0, tie_word_embeddings=tied)
    found = moved(library, modules_to_save=modules)
    on, before = logits(library), {name: value.clone() for name, value in library.state_dict().items()}
    plain = tiny_causal_lm("llama", scale=3.0, tie_word_embeddings=tied)
    plain.load_state_dict(found.merged())  # strict: no name missing, none too many
    assert torch.allclose(logits(plain), on, atol=1e-5)
    assert logits(library).equal(on)
    assert all(value.equal(before[name]) for name, value in library.state_dict().items())


def test_a_copy_has_adapters_of_its_own() -> None:
    library = tiny_causal_lm("llama", scale=3.0)
    twin, twins = cast("tuple[PreTrainedModel, LoraAdapters]", copy.deepcopy((library, moved(library))))
    on = logits(library)
    with twins.off():
        assert logits(library).equal(on)
        assert not logits(twin).equal(on)


def test_adapters_fit_any_module() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    base = module(torch.ones(1, 3))
    found = adapters.attach(module, AdapterConfig(r=1))
    with torch.no_grad():
        for value in found.parameters():
            value.fill_(1.0)
    assert not module(torch.ones(1, 3)).equal(base)
    with found.off():
        assert module(torch.ones(1, 3)).equal(base)


def test_pickled_adapters_are_refused(tmp_path: Path) -> None:
    moved(tiny_causal_lm("llama")).save(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model.bin, which is a pickle"):
        adapters.load(tiny_causal_lm("llama"), tmp_path)


@pytest.mark.parametrize("field", [{"peft_type": "IA3"}, {"init_lora_weights": "pissa"}])
def test_adapters_that_change_their_base_are_refused(field: dict[str, str], tmp_path: Path) -> None:
    moved(tiny_causal_lm("llama")).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    allowed = ("peft_type", "task_type", "base_model_name_or_path", "target_modules")
    kept = said if "init_lora_weights" in field else {name: said[name] for name in allowed}
    path.write_text(json.dumps(kept | field), encoding="utf-8")
    with pytest.raises(ModelError, match="leave their base unchanged"):
        adapters.load(tiny_causal_lm("llama"), tmp_path)


def test_what_is_saved_is_what_trains(tmp_path: Path) -> None:
    found = moved(tiny_causal_lm("llama"))
    found.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(value.numel() for value in saved.values()) == sum(value.numel() for value in found.parameters())


def test_making_models_and_adapters_seeds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(seed: int) -> None:
        pytest.fail("the GPU's random state was the caller's")

    monkeypatch.setattr("torch.cuda.manual_seed_all", seeded)
    before = torch.get_rng_state()
    adapters.attach(tiny_causal_lm(), AdapterConfig(r=2))
    assert torch.get_rng_state().equal(before)
