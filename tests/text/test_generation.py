"""Responses are the library's own: padded on the left, seeded, ended by their turn, coloured by no checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from modalign.config import ModelConfig
from modalign.content import RAW, Message, Part
from modalign.errors import DataError
from modalign.model import Model
from modalign_text.assembly import CausalLMAssembly
from modalign_text.loader import CausalLMLoader
from modalign_text.testing import tiny_model


def load(folder: Path) -> Model:
    return CausalLMLoader().load(ModelConfig(path=str(folder)))


def say(role: str, words: str) -> Message:
    return Message(role=role, parts=(Part(modality="text", value=words),))


PROMPTS = [
    [say("user", "a")],
    [say("user", "a longer one"), say("assistant", "b"), say("user", "c")],
    [say("user", "d")],
]


def test_responses_are_those_of_the_library(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, scale=4.0)
    model = load(folder)
    found = model.generate(PROMPTS, max_new_tokens=12, batch_size=2)
    library = cast(PreTrainedModel, AutoModelForCausalLM.from_pretrained(folder))
    write = cast(Callable[..., Tensor], library.generate)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, response in zip(PROMPTS, found, strict=True):
        chat = [{"role": one.role, "content": one.parts[0].value} for one in prompt]
        tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        written = write(**tokens, max_new_tokens=12, do_sample=False)[0, tokens["input_ids"].shape[1] :]
        assert response.messages[0].role == "assistant"
        assert response.messages[0].parts[0].value == tokenizer.decode(written, skip_special_tokens=True)


def test_sampling_depends_on_its_seed_only(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path, scale=2.0)).train()
    settings = {"max_new_tokens": 8, "temperature": 1.0, "top_p": 0.9}
    state = torch.get_rng_state()
    first = model.generate(PROMPTS, seed=1, **settings)
    assert torch.get_rng_state().equal(state)
    assert model.training
    torch.rand(5)
    assert model.generate(PROMPTS, seed=1, **settings) == first
    assert model.generate(PROMPTS, seed=2, **settings) != first


def test_a_response_ends_with_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_model(tmp_path))
    assembly = cast(CausalLMAssembly, model.assembly)
    end = cast(int, assembly.tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert end in assembly.stops
    head = cast(nn.Linear, assembly.library.get_output_embeddings())
    script = iter([65, 66, end, 67, 68, 69, 70, 71, 72, 73])

    def say_next(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        forced = torch.full_like(logits, -1e4)
        forced[..., next(script)] = 0
        return forced

    head.register_forward_hook(say_next)
    (response,) = model.generate([[say("user", "hi")]], max_new_tokens=10)
    assert response.messages[0].parts[0].value == assembly.tokenizer.decode([65, 66])
    assert next(script) == 67  # it stopped there, instead of writing on and cutting


def test_plain_text_is_continued_as_plain_text(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path, scale=4.0))
    (response,) = model.generate([[say(RAW, "once upon a")]], max_new_tokens=5)
    assert response.messages[0].role == RAW


def test_progress_counts_every_prompt(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path))
    done: list[int] = []
    model.generate(PROMPTS, max_new_tokens=2, batch_size=2, progress=done.append)
    assert done == [2, 1]


def test_the_checkpoints_own_sampling_settings_do_not_leak_in(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, scale=4.0)
    plain = load(folder).generate(PROMPTS, max_new_tokens=12)
    own = folder / "generation_config.json"
    said = json.loads(own.read_text(encoding="utf-8"))
    own.write_text(json.dumps(said | {"repetition_penalty": 5.0, "min_new_tokens": 12}), encoding="utf-8")
    model = load(folder)
    assert model.generate(PROMPTS, max_new_tokens=12) == plain
    assert cast(CausalLMAssembly, model.assembly).library.generation_config.repetition_penalty == 5.0


def test_an_empty_prompt_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prompt is empty"):
        load(tiny_model(tmp_path)).generate([[]])
