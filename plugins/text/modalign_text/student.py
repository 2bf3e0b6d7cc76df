"""A tiny untrained language model that knows the oracle world's words: what `modalign quickstart` teaches.

With the words of questions as well it is the half that speaks of a model that answers questions about media: put a
tiny encoder before it (`modalign.load(folder, encoders=...)`). About 0.1 M weights: a two-layer Llama, 64 wide, over a
vocabulary of whole words. A word keeps the space before it, so that decoding gives a sentence back as it was written.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import torch

from modalign.registry import registry
from modalign.world.concept import EVERY, VALUES, Concept, Value
from modalign.world.prompts import ask, ask_in
from modalign.world.questions import PHRASES, answer, question
from modalign_text.world import sentence

_PAD, _UNKNOWN, _USER, _ASSISTANT, _END = "<pad>", "<unk>", "<user>", "<assistant>", "<end>"
_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_SPACE = "▁"


def save_student(
    folder: str | Path,
    *,
    seed: int = 0,
    questions: bool = False,
    together: bool = False,
    positions: int = 128,
    layers: int = 2,
) -> Path:
    """Write the model and its tokenizer as transformers would; returns the folder.

    questions: whether it knows the words of questions about media and of their answers too.
    together: whether it knows those of requests for several modalities.
    positions: tokens that it can read.
    layers: of the network.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = (_PAD, _UNKNOWN, _USER, _ASSISTANT, _END)
    folder, further = Path(folder), [*(_questions() if questions else []), *(_requests() if together else [])]
    vocabulary = {token: number for number, token in enumerate((*specials, *_vocabulary(), *further))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True),
            pre_tokenizers.Split(Regex(r"[.,:?]" if questions else r"[.,:]"), behavior="isolated"),
        ]
    )
    words.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        eos_token=_END,
        additional_special_tokens=[_USER, _ASSISTANT],
        chat_template=_TEMPLATE,
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        initializer_range=0.1,  # at the usual 0.02 a model this narrow needs many times the steps to begin to copy
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=vocabulary[_END],
        pad_token_id=vocabulary[_PAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _vocabulary() -> list[str]:
    """Every word of the world's requests and sentences with the space before it, and the punctuation."""
    one_each = [Concept.of({name: value}) for name, values in VALUES.items() for value in values]
    pairs = [Concept.of({"count": count, "shape": shape}) for count in VALUES["count"] for shape in VALUES["shape"]]
    texts = chain.from_iterable((ask(concept), sentence(concept)) for concept in (*one_each, *pairs, _FULL))
    found = dict.fromkeys(_SPACE + word for text in texts for word in re.sub(r"[.,:]", " ", text).split())
    return [*found, ".", ",", ":"]


def _questions() -> list[str]:
    """What the world's questions and answers say beside requests and sentences."""
    names = [[name] for name in PHRASES] + [list(PHRASES)]
    texts = [question(one) for one in names]
    texts += [answer(Concept.of({name: value}), [name]) for name, values in EVERY.items() for value in values]
    found = dict.fromkeys(_SPACE + word for text in texts for word in re.sub(r"[.,:?]", " ", text).split())
    known = set(_vocabulary())
    return [*(word for word in found if word not in known), "?"]


def _requests() -> list[str]:
    """What requests for several modalities say beside others."""
    text = ask_in(_FULL, sorted(registry.depictions())) + ask_in(_FULL, [], shown=_FULL.attributes)
    found = dict.fromkeys(_SPACE + word for word in re.sub(r"[.,:]", " ", text).split())
    known = set(_vocabulary())
    return [word for word in found if word not in known]


_EVERYTHING: dict[str, Value] = {name: values[0] for name, values in VALUES.items()}
_FULL = Concept.of(_EVERYTHING)
