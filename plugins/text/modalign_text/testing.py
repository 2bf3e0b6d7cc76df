"""Public test doubles: a byte-level tokenizer and tiny random causal language models, made offline in a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

PAD, START, END, TEXT = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)  #: the chat template of the tiny tokenizer, https://github.com/openai/openai-python/blob/v0.28.1/chatml.md

WINDOW = 8  #: sliding window of the families that have one, in tokens

_SIZES: Mapping[str, object] = MappingProxyType(
    {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
)

#: what a family needs beside the sizes that all share
FAMILIES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "llama": {},
        "qwen2": {},
        "qwen3": {},
        "phi3": {"original_max_position_embeddings": 4096},
        "mistral": {"sliding_window": WINDOW},
        "gemma3_text": {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "gemma2": {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 2.0,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "cohere": {"logit_scale": 0.5},
        "granite": {"logits_scaling": 4.0},
        "mamba": {"state_size": 4},
        "recurrent_gemma": {"lru_width": 32, "attention_window_size": 64, "block_types": ["recurrent", "attention"]},
    }
)


def tiny_tokenizer(*, chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A tokenizer of the 256 bytes and four special tokens, with the ChatML template.

    chat_template: None makes a tokenizer without one.

    >>> tokenizer = tiny_tokenizer()
    >>> tokenizer.decode(tokenizer("naïve")["input_ids"]), len(tokenizer)
    ('naïve', 260)
    """
    return byte_tokenizer((PAD, START, END, TEXT), chat_template=chat_template, extra_special_tokens=[START, TEXT])


def byte_tokenizer(
    tokens: Sequence[str],
    *,
    chat_template: str | None,
    extra_special_tokens: Sequence[str] | Mapping[str, str],
) -> PreTrainedTokenizerFast:
    """A tokenizer of the 256 bytes and then these special tokens, `PAD` and `END` among them.

    extra_special_tokens: those the tokenizer lists beside the two; a mapping names them, as attributes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=extra_special_tokens,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_causal_lm(family: str = "llama", *, seed: int = 0, scale: float = 1.0, **settings: object) -> PreTrainedModel:
    """A random causal language model of one family, in float32 and eval mode.

    family: a key of `FAMILIES`.
    seed: of its weights; the caller's random state is untouched.
    scale: multiplies the matrices, so that what each token sees shows in the logits (4 for tests of attention).
    settings: of the family's config, beside or instead of the tiny sizes.
    """
    tokenizer = tiny_tokenizer()
    sizes = {
        "vocab_size": 320,  # more than the tokenizer has, as in most checkpoints
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    config = AutoConfig.for_model(family, **(sizes | dict(_SIZES) | dict(FAMILIES[family]) | settings))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return model.eval()


def tiny_model(
    folder: str | Path, family: str = "llama", *, seed: int = 0, scale: float = 1.0, **settings: object
) -> Path:
    """Save a tiny random model and its tokenizer; returns the folder, ready for `modalign.load`.

    The arguments are those of `tiny_causal_lm`.
    """
    folder = Path(folder)
    tiny_causal_lm(family, seed=seed, scale=scale, **settings).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
