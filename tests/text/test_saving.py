"""What is saved is in the field's formats, loads again to the same numbers, and writes the same responses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.config import AdapterConfig, ModelConfig
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.heads.linear import LinearHead
from modalign.model import Model
from modalign.scores import Scores
from modalign_text.assembly import CausalLMAssembly
from modalign_text.backbone import CausalLMBackbone
from modalign_text.loader import CausalLMLoader
from modalign_text.testing import tiny_model


def load(folder: Path, **settings: object) -> Model:
    return CausalLMLoader().load(ModelConfig.model_validate({"path": str(folder), **settings}))


def say(role: str, words: str) -> Message:
    return Message(role=role, parts=(Part(modality="text", value=words),))


def scores(model: Model) -> Scores:
    answers = (Response(messages=(say("assistant", words),)) for words in ("four", "five of them"))
    pair = Comparison.pair([say("user", "2+2?")], *answers)
    sample = Sample(comparison=pair, encoded=model.assembly.preparer.encode(pair), own=2)
    with torch.no_grad():
        return model(assemble([sample], share=model.shares), Draws())


def trained(model: Model) -> Model:
    """The model after some training: every trainable weight has moved."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in model.trainable().values():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model


def with_heads(model: Model) -> Model:
    width = cast(CausalLMBackbone, model.backbone).width
    model.heads["reward"] = LinearHead(width)
    model.heads["dimensions"] = LinearHead(width, dimensions=("helpful", "harmless"))
    return model


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3"])
def test_a_whole_model_loads_again(family: str, tmp_path: Path) -> None:
    model = trained(load(tiny_model(tmp_path / "base", family)))
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert scores(again).logps.equal(scores(model).logps)
    # split attention is how we compute, not what the model is: nobody else's folder may name it
    assert "modalign" not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    model = trained(load(tiny_model(tmp_path / "base", tie_word_embeddings=True)))
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert scores(again).logps.equal(scores(model).logps)
    head = cast(nn.Linear, again.decoders["text"].head)
    table = cast(CausalLMAssembly, again.assembly).library.get_input_embeddings()
    assert head.weight is cast(nn.Embedding, table).weight


def test_an_adapter_loads_again_with_its_base_and_goes_on(tmp_path: Path) -> None:
    model = trained(load(tiny_model(tmp_path / "base"), adapter=AdapterConfig(r=2)))
    model.save(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert "model.safetensors" not in names
    again = load(tmp_path / "saved")
    assert scores(again).logps.equal(scores(model).logps)
    assert again.trainable().keys() == model.trainable().keys()
    adapters = again.assembly.adapters
    assert adapters is not None
    with adapters.off():
        assert scores(again).logps.equal(scores(load(tmp_path / "base")).logps)


def test_a_merged_adapter_is_a_whole_model_and_training_goes_on(tmp_path: Path) -> None:
    model = trained(load(tiny_model(tmp_path / "base", scale=2.0), adapter=AdapterConfig(r=2)))
    before = scores(model).logps
    model.save(tmp_path / "saved", merge=True)
    assert scores(model).logps.equal(before)
    again = load(tmp_path / "saved")
    assert again.assembly.adapters is None
    assert torch.allclose(scores(again).logps, before, rtol=1e-5)
    model.save(tmp_path / "adapter")  # still an adapter
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("adapter", [None, AdapterConfig(r=2)])
def test_reward_heads_load_again(adapter: AdapterConfig | None, tmp_path: Path) -> None:
    model = trained(with_heads(load(tiny_model(tmp_path / "base"), adapter=adapter)))
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert list(again.heads) == ["reward", "dimensions"]
    found, expected = scores(again).rewards, scores(model).rewards
    assert expected["dimensions"].shape == (2, 2)
    assert all(found[name].equal(value) for name, value in expected.items())
    assert cast(LinearHead, again.heads["dimensions"]).dimensions == ("helpful", "harmless")


def test_a_model_without_heads_saves_none(tmp_path: Path) -> None:
    load(tiny_model(tmp_path / "base")).save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "modalign.json").exists()


def test_heads_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with_heads(load(tiny_model(tmp_path / "base"))).save(tmp_path / "saved")
    manifest = tmp_path / "saved" / "modalign.json"
    said = json.loads(manifest.read_text(encoding="utf-8"))
    said["heads"]["reward"]["dimensions"] = ["a", "b"]
    manifest.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(CheckpointError, match="reward heads"):
        load(tmp_path / "saved")
    (tmp_path / "saved" / "heads.safetensors").unlink()
    with pytest.raises(CheckpointError, match="reward heads"):
        load(tmp_path / "saved")


def test_an_adapter_whose_base_is_gone_says_so(tmp_path: Path) -> None:
    load(tiny_model(tmp_path / "base"), adapter=AdapterConfig(r=2)).save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelError, match=r"model of this adapter is gone.*base_model_name_or_path"):
        load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("said", "settings", "says"),
    [
        ({"_attn_implementation_internal": "owner/kernel"}, {}, "_attn_implementation_internal"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.M"}}, {}, "code of its own"),
        ({}, {"trust_remote_code": True}, "one commit only"),
    ],
)
def test_an_id_that_an_adapter_names_is_judged_like_one_that_the_user_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, object], settings: dict[str, object], says: str
) -> None:
    load(tiny_model(tmp_path / "base"), adapter=AdapterConfig(r=2)).save(tmp_path / "saved")
    file = tmp_path / "saved" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "owner/name"}))
    monkeypatch.setattr(
        "transformers.PretrainedConfig.get_config_dict", lambda *_, **__: ({"model_type": "llama"} | said, {})
    )
    with pytest.raises((ConfigError, ModelError), match=says):
        load(tmp_path / "saved", **settings)


def test_an_adapter_takes_no_second_one(tmp_path: Path) -> None:
    load(tiny_model(tmp_path / "base"), adapter=AdapterConfig(r=2)).save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="already has adapters"):
        load(tmp_path / "saved", adapter=AdapterConfig(r=4))
