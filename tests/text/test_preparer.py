"""Masks that cover exactly the response and its end of turn, under many templates; refusals; truncation."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from modalign.comparison import Comparison
from modalign.content import RAW, Message, Part, Response
from modalign.errors import ConfigError, DataError, ModelError, TooLong
from modalign.roles import Encoded
from modalign_text.preparer import ChatPreparer
from modalign_text.rendering import shared

SPECIAL = [
    "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>",
    "<|end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
    "<end_of_turn>", "<|observation|>", "<|start|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>", "<turn|>", "<|turn>",
    "<tool_call|>", "<|tool_response>", "<|eot|>",
]  # fmt: skip

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BARE_CHATML = CHATML.split("{% if add", maxsplit=1)[0]  # as the first ChatML templates were: no generation prompt
PHI = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
LLAMA = (
    "{% for message in messages %}{{ ('<|begin_of_text|>' if loop.first else '') + '<|start_header_id|>' + message.role"
    " + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role)"
    " + '\n' + message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ZEPHYR = (  # its headers are words, not tokens
    "{% for message in messages %}{{ '<<' + message.role + '>>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<<assistant>>\n' }}{% endif %}"
)
MISTRAL = (  # no generation prompt: the answer follows the instruction
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}"
    "{{ ' ' + message.content + eos_token }}{% else %}{{ '[INST] ' + message.content + ' [/INST]' }}{% endif %}"
    "{% endfor %}"
)
VICUNA = (  # no generation prompt, and a header of words
    "{% for message in messages %}{{ message.role.upper() + ': ' + message.content + (eos_token if message.role =="
    " 'assistant' else ' ') }}{% endfor %}"
)
GLM = (  # a turn ends where the next header begins
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ALPACA = (  # no special token at all
    "{% for message in messages %}{{ '### ' + message.role + ':\n' + message.content + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
THINKING = (  # strips the reasoning of every answer but the last, and opens an empty one where it is left out
    "{% for message in messages %}{% set words = message.content %}"
    "{% if message.role == 'assistant' %}{% set parts = words.split('</think>') %}"
    "{% set words = parts[-1].lstrip('\n') %}{% if loop.last %}"
    "{% set words = '<think>\n' + (parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '')"
    " + '\n</think>\n\n' + words %}{% endif %}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + words + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BLOCKS = (  # reads content as blocks only
    "{% for message in messages %}{{ '<|' + message.role + '|>' }}{% for block in message.content %}"
    "{% if block.type == 'text' %}{{ block.text }}{% endif %}{% endfor %}{{ '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOOLS = (
    "{% if tools %}{{ 'tools: ' + tools | tojson + '\n' }}{% endif %}{% if calm %}{{ 'calm\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' + call.function.name + call.function.arguments | tojson }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(
    template: str | None = CHATML, *, bos: bool = True, eos: str | None = "</s>", merges: tuple[str, ...] = (),
    swallow: bool = False,
) -> PreTrainedTokenizerFast:  # fmt: skip
    """A tokenizer of bytes.

    merges: pairs to merge, such as "a b".
    swallow: special tokens take the white space behind them, as Phi-3's do.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet()) + [merge.replace(" ", "") for merge in merges]
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        one, other = merge.split(" ")
        pairs.append((one, other))
    inner = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=pairs))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, rstrip=swallow) for token in SPECIAL])
    if bos:
        number = inner.token_to_id("<s>")
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>" if bos else None, eos_token=eos
    )
    tokenizer.chat_template = template
    return tokenizer


def say(role: str, words: str, **extra: object) -> Message:
    return Message(role=role, parts=(Part(modality="text", value=words),), extra=extra)


def answer(words: str, role: str = "assistant") -> Response:
    return Response(messages=(say(role, words),))


def one(preparer: ChatPreparer, prompt: list[Message], *response: Message) -> Encoded:
    (found,) = preparer.encode(Comparison.unpaired(prompt, Response(messages=response)))
    return found


def spell(preparer: ChatPreparer, ids: Sequence[int]) -> str:
    words = preparer.tokenizer.decode(list(ids))
    assert isinstance(words, str)
    return words


def number(preparer: ChatPreparer, token: str) -> int:
    found = preparer.tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def scored(preparer: ChatPreparer, encoded: Encoded) -> list[str]:
    """The words of each segment."""
    return [spell(preparer, encoded.tokens[part.start : part.stop]) for part in encoded.segments]


def context(preparer: ChatPreparer, encoded: Encoded) -> str:
    return spell(preparer, encoded.tokens[: encoded.prompt])


MASKS = {
    "chatml": (CHATML, "Hi<|im_end|>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"),
    "chatml without generation prompt": (
        BARE_CHATML, "Hi<|im_end|>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    ),
    "phi": (PHI, "Hi<|end|>", "<|user|>\nHello<|end|>\n<|assistant|>\n"),
    "llama": (
        LLAMA, "Hi<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (GEMMA, "Hi<end_of_turn>", "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n"),
    "zephyr": (ZEPHYR, "Hi</s>", "<<user>>\nHello</s>\n<<assistant>>\n"),
    "mistral": (MISTRAL, " Hi</s>", "<s>[INST] Hello [/INST]"),
    "vicuna": (VICUNA, " Hi</s>", "USER: Hello ASSISTANT:"),
    "glm": (GLM, "Hi", "<|user|>\nHello<|assistant|>\n"),
    "alpaca": (ALPACA, "Hi", "### user:\nHello\n\n### assistant:\n"),
    "thinking": (
        THINKING, "<think>\n\n</think>\n\nHi<|im_end|>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    ),
    "blocks": (BLOCKS, "Hi<|end|>", "<|user|>Hello<|end|>\n<|assistant|>"),
}  # fmt: skip


@pytest.mark.parametrize(("template", "response", "prompt"), MASKS.values(), ids=MASKS)
def test_the_mask_is_the_response_and_its_end_of_turn(template: str, response: str, prompt: str) -> None:
    preparer = ChatPreparer(byte_level(template))
    found = one(preparer, [say("user", "Hello")], say("assistant", "Hi"))
    assert scored(preparer, found) == [response]
    assert context(preparer, found) == prompt
    assert found.prompt == found.segments[0].start
    assert found.segments[0].stop == len(found.tokens)  # the template's suffix is left out


@pytest.mark.parametrize(("template", "prompt"), [(case[0], case[2]) for case in MASKS.values()], ids=MASKS)
def test_generation_continues_from_where_the_mask_begins(template: str, prompt: str) -> None:
    preparer = ChatPreparer(byte_level(template))
    found = one(preparer, [say("user", "Hello")], say("assistant", "Hi"))
    ids = preparer.prompt_ids([say("user", "Hello")])
    assert spell(preparer, ids) == prompt
    assert tuple(ids) == found.tokens[: found.prompt]


def test_a_peer_that_ignores_the_suffix_is_off_by_it() -> None:
    # A peer counts the response's own tokens back from the end of the row: under ChatML the last two, "<|im_end|>" and
    # a newline, shift its window, so that the first words of the response are never scored and the suffix is.
    preparer = ChatPreparer(byte_level(CHATML))
    row = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "four"}]
    whole = cast(list[int], preparer.tokenizer.apply_chat_template(row, return_dict=False))
    assert spell(preparer, whole[-len("four") :]) == "ur<|im_end|>\n"
    assert scored(preparer, one(preparer, [say("user", "2+2?")], say("assistant", "four"))) == ["four<|im_end|>"]


@pytest.mark.parametrize(
    "words", ["", " ", "\n", "\n\nHi", "Hi\n", "  Hi  ", "naïve 👩‍🚀 ö", "assistant\n", "a<b|>", "Hello"]
)
@pytest.mark.parametrize("swallow", [False, True], ids=["plain", "swallowing white space"])
def test_odd_content_moves_no_boundary(words: str, swallow: bool) -> None:
    preparer = ChatPreparer(byte_level(PHI, swallow=swallow))
    found = one(preparer, [say("user", "Hello")], say("assistant", words))
    (text,) = scored(preparer, found)
    assert text.endswith("<|end|>")
    assert found.tokens[-1] == number(preparer, "<|end|>")
    # a token that swallows white space takes the content's own leading white space out of the sequence
    assert text == (words.lstrip() if swallow else words) + "<|end|>"


def test_a_token_over_the_boundary_belongs_to_the_response() -> None:
    preparer = ChatPreparer(byte_level(CHATML, merges=("Ċ Ċ",)))  # two newlines are one token
    plain, straddling = (one(preparer, [say("user", "Hello")], say("assistant", words)) for words in ("Hi", "\nHi"))
    assert scored(preparer, straddling) == ["\n\nHi<|im_end|>"]
    assert straddling.prompt == plain.prompt - 1
    assert straddling.tokens[: straddling.prompt] == plain.tokens[: straddling.prompt]


def test_several_turns_are_several_segments_and_a_tool_is_context() -> None:
    preparer = ChatPreparer(byte_level(TOOLS))
    call = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    found = one(
        preparer,
        [say("user", "1+1?")],
        say("assistant", "Let me see.", tool_calls=call),
        say("tool", "2"),
        say("assistant", "It is 2."),
    )
    assert scored(preparer, found) == ['Let me see.<call>add{"a": 1}<|im_end|>', "It is 2.<|im_end|>"]
    first, second = found.segments
    between = spell(preparer, found.tokens[first.stop : second.start])
    assert between == "\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n"
    assert context(preparer, found).endswith("<|im_start|>assistant\n")


def test_a_tool_first_or_last_is_context() -> None:
    preparer = ChatPreparer(byte_level(CHATML))
    prompt = [say("user", "1+1?"), say("assistant", "add(1, 1)")]
    found = one(preparer, prompt, say("tool", "2"), say("assistant", "It is 2."), say("tool", "done"))
    assert scored(preparer, found) == ["It is 2.<|im_end|>"]
    assert context(preparer, found).endswith("add(1, 1)<|im_end|>\n")
    assert spell(preparer, found.tokens).endswith("<|im_start|>tool\ndone<|im_end|>\n")


def test_a_turn_that_ends_with_the_next_header_ends_there() -> None:
    preparer = ChatPreparer(byte_level(GLM))
    found = one(
        preparer, [say("user", "Hi")], say("assistant", "Yes?"), say("observation", "x"), say("assistant", "No.")
    )
    assert scored(preparer, found) == ["Yes?<|observation|>", "No."]
    assert number(preparer, "<|user|>") in preparer.stop_ids


def test_an_end_of_turn_is_never_looked_for_in_the_next_message() -> None:
    template = (  # the tool's answer is written inside the model's turn
        "{% for message in messages %}{% if message.role == 'user' %}{{ '<|turn>user ' + message.content + '<turn|>' }}"
        "{% elif message.role == 'tool' %}{{ '[' + message.content + ']' }}"
        "{% else %}{{ message.content + ('<turn|>' if loop.last else '') }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
    )
    preparer = ChatPreparer(byte_level(template))
    found = one(preparer, [say("user", "Hi")], say("assistant", "call"), say("tool", "TOLD"), say("assistant", "Done"))
    assert scored(preparer, found) == ["call", "Done<turn|>"]


def test_rewritten_history_moves_no_boundary() -> None:
    preparer = ChatPreparer(byte_level(THINKING))
    thought, later = "<think>\nhm\n</think>\n\nYo", "<think>\nwell\n</think>\n\nOkay."
    history = [say("user", "Hi"), say("assistant", thought), say("user", "Again")]
    found = one(preparer, history, say("assistant", later))
    assert scored(preparer, found) == [later + "<|im_end|>"]
    assert "hm" not in context(preparer, found)
    # the same two turns as a response: the first is stripped only because the second follows
    found = one(preparer, [say("user", "Hi")], say("assistant", thought), say("tool", "x"), say("assistant", later))
    assert scored(preparer, found) == ["Yo<|im_end|>", later + "<|im_end|>"]


def test_content_may_be_a_prefix_of_what_the_generation_prompt_opens() -> None:
    template = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")
    preparer = ChatPreparer(byte_level(template))
    found = one(preparer, [say("user", "Hi")], say("assistant", "<b>bold</b>"))
    assert scored(preparer, found) == ["<b>bold</b><|im_end|>"]


@pytest.mark.parametrize("trimmed", [" padded ", "\n\nlines\n"])
def test_trimmed_content_is_scored_as_the_template_writes_it(trimmed: str) -> None:
    preparer = ChatPreparer(byte_level(GEMMA))
    found = one(preparer, [say("user", "Hello")], say("assistant", trimmed))
    assert scored(preparer, found) == [trimmed.strip() + "<end_of_turn>"]


TRL = "_training.jinja"


def training_templates() -> list[Path]:
    try:
        folder = files("trl") / "chat_templates"
    except ModuleNotFoundError:
        return []
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(TRL))


@pytest.mark.parametrize("path", training_templates(), ids=lambda path: path.name.removesuffix(TRL))
def test_masks_agree_with_the_templates_that_mark_their_own_answers(path: Path) -> None:
    # TRL's training templates mark what the model wrote, with the suffix behind the end of turn or the generation
    # prompt before it here and there: ours has the same end of turn, and lies inside up to that prompt.
    preparer = ChatPreparer(byte_level(path.read_text(encoding="utf-8")))
    found = one(preparer, [say("user", "Hello")], say("assistant", "Hi there"))
    (text,) = scored(preparer, found)
    blocks = preparer._template.blocks
    told = [
        {"role": role, "content": [{"type": "text", "text": words}] if blocks else words}
        for role, words in (("user", "Hello"), ("assistant", "Hi there"))
    ]
    marked = cast(
        dict[str, list[int]],
        preparer.tokenizer.apply_chat_template(
            cast(list[dict[str, str]], told), return_assistant_tokens_mask=True, return_dict=True
        ),
    )
    pairs = zip(marked["input_ids"], marked["assistant_masks"], strict=True)
    theirs = spell(preparer, [token for token, mask in pairs if mask])
    opening, closing = theirs.split("Hi there")
    before, end = text.split("Hi there")
    assert opening.endswith(before)
    assert closing.startswith(end)
    # what they score beyond: white space; the end of text that Phi-3 writes in training only; GLM's next header
    assert closing.removeprefix(end).strip() in ("", "<|endoftext|>", "</s>", "<|user|>")


def test_plain_text_continues_after_the_first_token_and_ends_with_the_last() -> None:
    preparer = ChatPreparer(byte_level())
    for words in ("4", "4</s>"):  # an end of text that the data wrote out is not doubled
        found = one(preparer, [say(RAW, "2+2=")], say(RAW, words))
        assert spell(preparer, found.tokens) == "<s>2+2=4</s>"
        assert scored(preparer, found) == ["4</s>"]
        assert context(preparer, found) == "<s>2+2="
    assert tuple(preparer.prompt_ids([say(RAW, "2+2=")])) == found.tokens[: found.prompt]


def test_an_end_of_text_that_the_tokenizer_adds_does_not_end_the_prompt() -> None:
    fast, slow = byte_level(), Closing()
    start, end = ((token, fast.convert_tokens_to_ids(token)) for token in ("<s>", "</s>"))
    fast.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[start, end])
    for tokenizer in (fast, slow):
        preparer = ChatPreparer(tokenizer)
        found = one(preparer, [say(RAW, "2+2=")], say(RAW, "4"))
        assert tuple(preparer.prompt_ids([say(RAW, "2+2=")])) == found.tokens[: found.prompt]
        assert found.tokens[-1] == tokenizer.eos_token_id
        assert found.tokens[-2] != tokenizer.eos_token_id


def test_plain_text_without_special_tokens_has_none() -> None:
    preparer = ChatPreparer(byte_level(bos=False, eos=None))
    found = one(preparer, [say(RAW, "2+2=")], say(RAW, "4"))
    assert spell(preparer, found.tokens) == "2+2=4"
    assert scored(preparer, found) == ["4"]


def test_tools_and_template_settings_reach_the_template() -> None:
    preparer = ChatPreparer(byte_level(TOOLS))
    tools = [{"type": "function", "function": {"name": "add"}}]
    prompt = [say("user", "Hi", tools=tools, chat_template_kwargs={"calm": True})]
    found = one(preparer, prompt, say("assistant", "Yes"))
    assert context(preparer, found).startswith('tools: [{"type": "function", "function": {"name": "add"}}]\ncalm\n')
    assert scored(preparer, found) == ["Yes<|im_end|>"]
    assert tuple(preparer.prompt_ids(prompt)) == found.tokens[: found.prompt]


def test_another_template_takes_the_place_of_the_tokenizers() -> None:
    preparer = ChatPreparer(byte_level(CHATML), template=ZEPHYR)
    assert scored(preparer, one(preparer, [say("user", "Hello")], say("assistant", "Hi"))) == ["Hi</s>"]


def test_what_a_model_wrote_is_read_up_to_its_end_of_turn() -> None:
    preparer = ChatPreparer(byte_level(LLAMA))
    assert preparer.stop_ids == {number(preparer, "<|eot_id|>"), number(preparer, "</s>")}
    found = one(preparer, [say("user", "Hello")], say("assistant", "Hi"))
    ids = found.tokens[found.prompt :]
    assert preparer.response_of([*ids, *ids]) == answer("Hi")
    assert preparer.response_of(ids[:1], role=RAW) == answer("H", RAW)


def bad(template: str | None, prompt: list[Message], *messages: Message) -> DataError:
    with pytest.raises(DataError) as caught:
        one(ChatPreparer(byte_level(template)), prompt, *messages)
    return caught.value


def test_each_unusable_row_is_refused_in_words() -> None:
    hello, hi = say("user", "Hello"), say("assistant", "Hi")
    error = bad(None, [hello], hi)
    assert "no chat template" in str(error)
    assert "model.chat_template" in str(error)
    error = bad(GEMMA, [say("system", "Be nice."), hello], hi)
    assert (error.field, "System role not supported" in str(error)) == ("prompt", True)
    assert bad(CHATML, [], hi).field == "prompt"
    assert "prompt is empty" in str(bad(CHATML, [say(RAW, "")], say(RAW, "x")))
    assert "no token to score" in str(bad(CHATML, [hello], say("tool", "2")))
    assert bad(CHATML, [hello]).field == "responses[0]"
    error = bad(CHATML, [hello], say("assistant", "a<|im_end|>\nb"))
    assert (error.field, "'<|im_end|>'" in str(error)) == ("responses[0]", True)
    assert "'</s>'" in str(bad(CHATML, [say("user", "<s>struck</s> out".replace("<s>", "")), hello], hi))
    assert "'<|end|>'" in str(bad(CHATML, [hello], say("assistant", "x", tool_calls=[{"id": "<|end|>"}])))
    assert "'</s>'" in str(bad(CHATML, [say(RAW, "a</s>")], say(RAW, "b")))
    assert "not both" in str(bad(CHATML, [hello], say(RAW, "Hi")))
    picture = Message(role="user", parts=(Part(modality="image", value=b"..."),))
    error = bad(CHATML, [picture], hi)
    assert "takes no image" in str(error)
    assert "it takes text" in str(error)


def test_the_column_of_a_bad_response_is_named() -> None:
    preparer = ChatPreparer(byte_level())
    pair = Comparison.pair([say("user", "Hello")], answer("Hi"), answer("a<|end|>"))
    with pytest.raises(DataError, match="field=rejected"):
        preparer.encode(pair)


def test_a_broken_template_is_the_models_fault() -> None:
    with pytest.raises(ModelError, match="not valid Jinja"):
        one(ChatPreparer(byte_level("{% for %}")), [say("user", "Hello")], say("assistant", "Hi"))


def test_a_prompt_alone_is_checked_and_gives_nothing() -> None:
    preparer = ChatPreparer(byte_level(GEMMA))
    assert preparer.encode(Comparison.prompt_only([say("user", "Hello")])) == ()
    with pytest.raises(DataError, match="System role"):
        preparer.encode(Comparison.prompt_only([say("system", "x")]))


class Letters(PreTrainedTokenizer):
    """A slow tokenizer: it gives no offsets."""

    def __init__(self, **settings: object) -> None:
        super().__init__(pad_token="<pad>", eos_token="</s>", **settings)

    @property
    def vocab_size(self) -> int:
        return 256

    def get_vocab(self) -> dict[str, int]:
        return {chr(number): number for number in range(256)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **settings: object) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)


class Closing(Letters):
    """A slow tokenizer that ends every sequence."""

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [*token_ids_0, cast(int, self.eos_token_id)]


def test_a_tokenizer_without_offsets_gives_the_same_masks() -> None:
    slow = Letters(extra_special_tokens=["<|im_start|>", "<|im_end|>"])
    slow.chat_template = CHATML
    preparer = ChatPreparer(slow)
    assert not slow.is_fast
    found = one(preparer, [say("user", "Hello")], say("assistant", "Hi"), say("tool", "x"), say("assistant", "Yo"))
    parts = ["".join(slow.convert_ids_to_tokens(found.tokens[part.start : part.stop])) for part in found.segments]  # pyright: ignore
    assert parts == ["Hi<|im_end|>", "Yo<|im_end|>"]
    assert "".join(slow.convert_ids_to_tokens(found.tokens[: found.prompt])).endswith("<|im_start|>assistant\n")  # pyright: ignore
    plain = one(preparer, [say(RAW, "2+2=")], say(RAW, "4"))
    assert plain.tokens[plain.prompt :] == (ord("4"), slow.eos_token_id)


PAIR = Comparison.pair([say("user", "Hello there, how are you?")], answer("Fine, thank you."), answer("No."))


def test_a_long_sample_is_refused_with_its_lengths() -> None:
    preparer = ChatPreparer(byte_level(GEMMA))
    whole = preparer.encode(PAIR)
    longest = max(len(encoded.tokens) for encoded in whole)
    assert preparer.encode(PAIR, max_length=longest) == whole
    with pytest.raises(TooLong, match=rf"{longest} tokens where max_length is {longest - 1}: prompt \d+, response"):
        preparer.encode(PAIR, max_length=longest - 1)
    with pytest.raises(ConfigError, match="truncate"):
        preparer.encode(PAIR, max_length=1, truncate="middle")


@settings(max_examples=40, deadline=None)
@given(max_length=st.integers(1, 90), truncate=st.sampled_from(["prompt", "response"]), bos=st.booleans())
def test_truncated_samples_fit_share_their_prompt_and_keep_something_of_both(
    max_length: int, truncate: str, bos: bool
) -> None:
    preparer = ChatPreparer(byte_level(GEMMA if bos else CHATML))
    whole = preparer.encode(PAIR)
    try:
        cut = preparer.encode(PAIR, max_length=max_length, truncate=truncate)
    except TooLong:
        prompt, ours = whole[0].prompt, [len(encoded.tokens) - encoded.prompt for encoded in whole]
        # not even one prompt token beside the response (and the first token), or one response token beside the prompt
        assert max_length < (max(ours) + 1 + bos if truncate == "prompt" else prompt + 1)
        return
    assert all(len(encoded.tokens) <= max_length for encoded in cut) or cut == whole
    assert len({encoded.tokens[: encoded.prompt] for encoded in cut}) == 1
    for before, after in zip(whole, cut, strict=True):
        assert after.prompt >= 1 + bos
        assert all(part.stop > part.start for part in after.segments)
        assert after.segments
        kept, full = after.tokens[after.segments[0].start :], before.tokens[before.segments[0].start :]
        if truncate == "prompt":
            assert kept == full
            assert after.tokens[: int(bos)] == before.tokens[: int(bos)]
            assert before.tokens[-len(after.tokens[int(bos) :]) :] == after.tokens[int(bos) :]
        else:
            assert full[: len(kept)] == kept
            assert after.tokens[: after.prompt] == before.tokens[: before.prompt]


def test_the_same_prompt_tokens_are_dropped_for_every_response() -> None:
    preparer = ChatPreparer(byte_level(CHATML))
    long, short = preparer.encode(PAIR)
    cut = preparer.encode(PAIR, max_length=len(long.tokens) - 5, truncate="prompt")
    assert [encoded.prompt for encoded in cut] == [long.prompt - 5] * 2
    assert cut[1].tokens == short.tokens[5:]


@given(st.text(alphabet="ab", max_size=12), st.text(alphabet="ab", max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_common_beginning_is_the_longest(one: str, other: str) -> None:
    length = shared(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or length == len(one) == len(other)


@settings(max_examples=40, deadline=None)
@given(words=st.text(alphabet=st.sampled_from("ab \nö<>|"), max_size=20), name=st.sampled_from(sorted(MASKS)))
def test_any_words_are_scored_whole_and_nothing_else(words: str, name: str) -> None:
    template, response, prompt = MASKS[name]
    preparer = ChatPreparer(byte_level(template))
    assume(words or template not in (GLM, ALPACA))  # without words they leave nothing to score
    found = one(preparer, [say("user", "Hello")], say("assistant", words))
    trims = template in (LLAMA, GEMMA)
    shown = words.strip() if trims else words.lstrip("\n") if template == THINKING else words
    assert scored(preparer, found) == [response.replace("Hi", shown)]
    assert context(preparer, found) == prompt
