"""Any causal language model by folder: what loads gives transformers' own numbers, what cannot says why."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
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
from modalign.errors import CheckpointError, ConfigError, ModalignError, ModelError
from modalign.model import Model
from modalign_text.assembly import CausalLMAssembly
from modalign_text.backbone import CausalLMBackbone
from modalign_text.loader import CausalLMLoader
from modalign_text.testing import tiny_causal_lm, tiny_model, tiny_tokenizer

FAMILIES = ("llama", "qwen2", "qwen3", "phi3", "mistral", "gemma3_text", "gemma2", "cohere", "granite", "mamba")


def load(folder: Path, **settings: object) -> Model:
    return CausalLMLoader().load(ModelConfig.model_validate({"path": str(folder), **settings}))


def say(role: str, words: str) -> Message:
    return Message(role=role, parts=(Part(modality="text", value=words),))


def pair() -> Comparison:
    chosen, rejected = (Response(messages=(say("assistant", words),)) for words in ("four", "five of them"))
    return Comparison.pair([say("user", "2+2?")], chosen, rejected)


def sample(model: Model) -> Sample:
    encoded = model.assembly.preparer.encode(pair())
    return Sample(comparison=pair(), encoded=encoded, own=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_library(family: str, tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path, family, scale=4.0))
    one = sample(model)
    with torch.no_grad():
        scores = model(assemble([one], share=model.shares), Draws())
        library = tiny_causal_lm(family, scale=4.0)
        for response, encoded in enumerate(one.encoded):
            (segment,) = encoded.segments
            tokens = torch.tensor(encoded.tokens)
            logps = library(input_ids=tokens[None]).logits[0].double().log_softmax(-1)
            places = torch.arange(segment.start, segment.stop)
            expected = logps[places - 1, tokens[places]].sum()
            assert scores.logps[response].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_scale_that_no_config_declares_is_found_and_one_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model(tmp_path, "llama", scale=4.0)
    kind = type(tiny_causal_lm("llama"))
    honest = kind.forward

    def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., object]:
        def forward(self: nn.Module, *args: object, **kwargs: object) -> object:
            answer = honest(self, *args, **kwargs)
            answer.logits = change(answer.logits)
            return answer

        return forward

    monkeypatch.setattr(kind, "forward", changed(lambda logits: logits * 0.3))
    assert load(folder).decoders["text"].scale == pytest.approx(0.3, rel=1e-4)
    monkeypatch.setattr(kind, "forward", changed(lambda logits: logits.sort(-1).values))
    with pytest.raises(ModelError, match=r"logits of .*LlamaForCausalLM"):
        load(folder)


def test_the_decision_about_the_trunk_is_kept_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="modalign"):
        model = load(tiny_model(tmp_path / "a", "qwen3"))
    assert model.shares
    backbone = cast(CausalLMBackbone, model.backbone)
    assert backbone.sharing == "split"
    said = [record.message for record in caplog.records if "responses" in record.message]
    assert said == [f"responses share their prompt (split): {backbone.reason}"]
    assert not load(tiny_model(tmp_path / "b"), sharing="off").shares
    assert not load(tiny_model(tmp_path / "c", "mamba")).shares


@pytest.mark.parametrize("sharing", ["split", "mask"])
def test_a_way_asked_for_by_name_that_cannot_hold_is_an_error(sharing: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"state that runs over the row.*sharing='auto'"):
        load(tiny_model(tmp_path, "mamba"), sharing=sharing)


def test_eager_attention_shares_by_a_mask_and_never_by_split(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    model = load(folder, attn_implementation="eager")
    assert cast(CausalLMBackbone, model.backbone).sharing == "mask"
    with pytest.raises(ModelError, match="the model uses eager"):
        load(folder, attn_implementation="eager", sharing="split")


def test_an_attention_that_is_not_installed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tiny_model(tmp_path), attn_implementation="flash_attention_9")


def test_settings_reach_the_model(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}", encoding="utf-8")
    folder = tiny_model(tmp_path / "model")
    model = load(folder, dtype="bfloat16", chat_template=template, gradient_checkpointing=True)
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assembly = cast(CausalLMAssembly, model.assembly)
    assert assembly.tokenizer.chat_template == template.read_text(encoding="utf-8")
    backbone = cast(CausalLMBackbone, model.backbone)
    assert all(
        module.gradient_checkpointing for module in backbone.modules() if type(module).__name__ in backbone.blocks
    )


def test_auto_takes_float32_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "model"
    tiny_causal_lm().bfloat16().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert {value.dtype for value in load(folder).parameters()} == {torch.float32}


def test_policy_and_checkpointing_train_every_weight(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path), gradient_checkpointing=True).train()
    scores = model(assemble([sample(model)], share=True), Draws())
    scores.logps.sum().backward()
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in model.trainable().values())


def test_loading_takes_only_what_it_knows(tmp_path: Path) -> None:
    claims = CausalLMLoader().claims
    folder = tiny_model(tmp_path / "model")
    assert claims(ModelConfig(path=str(folder)))
    assert claims(ModelConfig(path="owner/name"))
    assert not claims(ModelConfig(path=str(tmp_path)))
    edit(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    assert not claims(ModelConfig(path=str(folder)))
    with pytest.raises(ModelError, match=r"no language model that transformers knows.*LlamaForSequenceClassification"):
        load(folder)


def edit(path: Path, **fields: object) -> None:
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(said | fields), encoding="utf-8")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_a_renamed_pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"cposix\nsystem\n" * 64)


def with_a_cut_file(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def with_a_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ', encoding="utf-8")


def with_another_width(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=48)


def with_one_layer_too_many(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3)


def with_code(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Evil"})


def with_code_in_the_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.Evil", None]})


def with_a_hidden_attention(folder: Path) -> None:
    edit(folder / "config.json", text_config={"_attn_implementation_internal": "evil/kernel"})


def with_more_tokens_than_embeddings(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{number}>" for number in range(100)])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (without_weights, ModelError, "no weights"),
        (with_pickled_weights, CheckpointError, r"pickles.*pytorch_model.bin.*save_pretrained"),
        (with_a_renamed_pickle, CheckpointError, "no safetensors file"),
        (with_a_cut_file, CheckpointError, "no safetensors file"),
        (without_tokenizer, ModelError, r"no tokenizer.*AutoTokenizer"),
        (without_config, ModelError, "no config.json"),
        (with_a_broken_config, ModelError, "cannot be read"),
        (with_another_width, ModelError, "cannot be loaded|lacks weights"),
        (with_one_layer_too_many, ModelError, r"lacks weights.*layers\.2"),
        (with_code, ModelError, r"code of its own.*auto_map"),
        (with_code_in_the_tokenizer, ModelError, "code of its own"),
        (with_a_hidden_attention, ModelError, "_attn_implementation_internal"),
        (with_more_tokens_than_embeddings, ModelError, "360 tokens, 320 embeddings"),
    ],
)
def test_a_folder_that_cannot_be_loaded_says_why(
    spoil: Callable[[Path], None], kind: type[ModalignError], says: str, tmp_path: Path
) -> None:
    folder = tiny_model(tmp_path)
    spoil(folder)
    with pytest.raises(kind, match=says) as caught:
        load(folder)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"path": "./nowhere"}, "no such model"),
        ({"path": "owner/name", "trust_remote_code": True, "revision": "main"}, "full commit"),
        ({"path": "owner/name", "options": {"speed": 2}}, "speed"),
        ({"path": "owner/name", "trust_remote_code": True}, "one commit only"),
    ],
)
def test_a_config_that_cannot_be_right_says_why(settings: dict[str, object], says: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=says):
        CausalLMLoader().load(ModelConfig.model_validate(settings))


def test_an_id_that_cannot_be_fetched_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="modalign-tests/absent"):
        CausalLMLoader().load(ModelConfig(path="modalign-tests/absent"))


def test_trusted_code_is_not_refused_by_the_scan(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    edit(folder / "config.json", auto_map={"AutoModel": "modeling.Unused"})
    with pytest.raises(ModelError, match="code of its own"):
        load(folder)
    # the library takes its own class, since only `AutoModel` is mapped: no file of the folder is run
    assert load(folder, trust_remote_code=True).shares


def test_adapters_leave_the_head_alone(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path), adapter=AdapterConfig(r=2))
    assert type(model.decoders["text"].head) is nn.Linear
    assert all("lora_" in name for name in model.trainable())
