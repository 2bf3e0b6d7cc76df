"""Media as codes that a language model writes and reads itself: scored exactly, written as they are scored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import pytest
import torch
from torch import Tensor

import modalign
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.decoders.codes import Codec, CodeDecoder
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError
from modalign.hookspecs import Register, hookimpl
from modalign.model import Model, generation
from modalign.objectives import DPO, SFT
from modalign.registry import registry
from modalign.roles import Content
from modalign.scores import Scores
from modalign.training import Trainer
from modalign_text.multimodal.makers import closes, opens
from modalign_text.multimodal.spelling import spell

SIDE, LEVELS = 3, 4


class Greys(Codec):
    """Pictures as a few brightnesses, row by row."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.side, self.size, self.length = side, LEVELS, side * side

    @classmethod
    def load(cls, path: str, *, revision: str | None = None, **options: object) -> Self:
        return cls(int(json.loads((Path(path) / "greys.json").read_text())["side"]))

    def save(self, folder: Path) -> None:
        (folder / "greys.json").write_text(json.dumps({"side": self.side}))

    def encode(self, content: Content) -> Tensor:
        grey = content.tensor.float().mean(0, keepdim=True)[None] / 256  # 1 1 h w
        return (torch.nn.functional.adaptive_avg_pool2d(grey, self.side)[0, 0] * LEVELS).long().flatten()

    def decode(self, codes: Tensor) -> Part:
        grey = ((codes.reshape(self.side, self.side) + 0.5) * 256 / LEVELS).to(torch.uint8)
        return Part(modality="image", value=grey.repeat_interleave(8, 0).repeat_interleave(8, 1).expand(3, -1, -1))


class GreyDecoder(CodeDecoder):
    """Brightnesses behind a language model."""

    reads = Greys


class Plugin:
    """What somebody would install."""

    @hookimpl
    def register_decoders(self, register: Register) -> None:
        register("greys", f"{__name__}:GreyDecoder", modality="image", kind="token")


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    with registry.scoped(Plugin(), name="greys"):
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    registry.depiction("text").student(folder / "words")
    (folder / "greys").mkdir()
    Greys().save(folder / "greys")
    return folder


def composed(parts: Path, **settings: object) -> Model:
    decoders = {"image": {"path": str(parts / "greys"), "type": "greys", **settings}}
    return modalign.compose(parts / "words", decoders=decoders).eval()


def greys(*levels: int) -> Part:
    return Greys().decode(torch.tensor(levels))


def words(value: str) -> Part:
    return Part(modality="text", value=value)


ONE, OTHER = (0, 1, 2, 3, 0, 1, 2, 3, 0), (3, 3, 3, 0, 0, 0, 1, 1, 1)


def asked(*more: Part) -> list[Message]:
    return [Message(role="user", parts=(words("Show me this: count two."), *more))]


def answer(*parts: Part) -> Response:
    return Response(messages=(Message(role="assistant", parts=parts),))


def pair() -> Comparison:
    chosen = answer(words("two red circles."), greys(*ONE), words("one"))
    rejected = answer(words("two red circles."), greys(*OTHER), words("one"))
    return replace(Comparison.pair(asked(), chosen, rejected), id="pair")


def scores(model: Model, one: Comparison) -> Scores:
    sample = Sample(comparison=one, encoded=model.assembly.preparer.encode(one), own=len(one.responses))
    return model(assemble([sample], share=model.shares), Draws(seed=0))


def test_codes_are_units_of_their_own_head_given_all_that_comes_before(parts: Path) -> None:
    model = composed(parts)
    (one, _) = model.assembly.preparer.encode(pair())
    (drawn,) = [segment for segment in one.segments if segment.decoder == "image"]
    assert drawn.kind == "token"
    assert drawn.codes == ONE
    tokenizer = model.assembly.preparer.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    assert one.tokens[drawn.start - 1] == tokenizer.convert_tokens_to_ids(opens("image"))
    assert one.tokens[drawn.stop] == tokenizer.convert_tokens_to_ids(closes("image"))

    found = scores(model, pair())
    decoder = cast(GreyDecoder, model.decoders["image"])
    library = model.assembly.library  # pyright: ignore[reportAttributeAccessIssue]
    inputs = library.get_input_embeddings()(torch.tensor(one.tokens))
    inputs[drawn.start : drawn.stop] = decoder.table(torch.tensor(ONE))
    states = library.get_decoder()(inputs_embeds=inputs[None]).last_hidden_state[0]
    chances = decoder.head(states[drawn.start - 1 : drawn.stop - 1]).log_softmax(-1)
    expected = chances.gather(-1, torch.tensor(ONE)[:, None])[:, 0]
    units = found.units["image"]
    assert torch.allclose(units.values[: len(ONE)], expected.double().to(units.values.dtype), rtol=1e-5, atol=1e-6)
    assert len(units.values) == 2 * len(ONE)


def test_what_follows_sees_the_codes(parts: Path) -> None:
    model = composed(parts)
    said = [scores(model, Comparison.unpaired(asked(), answer(greys(*one), words("one")))) for one in (ONE, OTHER)]
    first, second = (one.units["text"].values for one in said)
    assert torch.equal(first[:1], second[:1])  # what opens it
    assert not torch.allclose(first[1:], second[1:])


def test_media_of_prompts_are_read_as_codes(parts: Path) -> None:
    model = composed(parts)
    one, other = (
        scores(model, Comparison.unpaired(asked(greys(*each)), answer(words("one")))).units["text"].values
        for each in (ONE, OTHER)
    )
    assert not torch.allclose(one, other)


def test_a_medium_that_has_no_code_is_an_error_of_its_row(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = composed(parts)
    monkeypatch.setattr(Greys, "encode", lambda *_: torch.full((SIDE * SIDE,), LEVELS))
    with pytest.raises(DataError, match="not in its vocabulary") as caught:
        model.assembly.preparer.encode(pair())
    assert caught.value.field == "chosen[0].content[1].image"


def test_spans_of_codes_are_refused(parts: Path) -> None:
    model = composed(parts)
    spanned = replace(greys(*ONE), spans=((0.0, 0.5),))
    with pytest.raises(DataError, match="a medium of image codes has no time of which spans are scored") as caught:
        model.assembly.preparer.encode(Comparison.unpaired(asked(), answer(spanned)))
    assert caught.value.field == "responses[0][0].content[0].spans"


def test_training_moves_table_and_head_and_starts_at_log_2(parts: Path, tmp_path: Path) -> None:
    model = composed(parts)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = Trainer(
        model=model,
        objective=DPO(beta=0.1),
        data=[pair()],
        output_dir=tmp_path / "run",
        max_steps=3,
        learning_rate=1e-2,
        quiet=True,
    )
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6)
    assert losses[-1] < losses[0]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"decoders.image.table.weight", "decoders.image.head.weight"} <= moved


def test_one_folder_holds_it_and_gives_the_same(parts: Path, tmp_path: Path) -> None:
    model = composed(parts)
    with torch.no_grad():
        model.decoders["image"].head.weight.normal_(generator=torch.Generator().manual_seed(1))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    model.save(tmp_path / "whole")
    again = modalign.load(tmp_path / "whole").eval()
    with torch.no_grad():
        for name, units in scores(model, pair()).units.items():
            assert torch.equal(units.values, scores(again, pair()).units[name].values)
    said = [each.generate([asked()], seed=3, temperature=1.0, max_new_tokens=12) for each in (model, again)]
    assert [part.digest for part in said[0][0].parts()] == [part.digest for part in said[1][0].parts()]


def test_it_writes_what_it_was_taught(parts: Path, tmp_path: Path) -> None:
    model = composed(parts)
    rows = [
        replace(
            Comparison.unpaired(asked(), answer(words("two red circles."), greys(*ONE), words("one"))), id=str(number)
        )
        for number in range(4)
    ]
    Trainer(
        model=model,
        objective=SFT(),
        data=rows,
        output_dir=tmp_path / "run",
        max_steps=60,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        quiet=True,
    ).train()
    (said,) = model.generate([asked()], max_new_tokens=12)
    first, picture, last = said.parts()
    assert (first.value, picture.modality, last.value) == ("two red circles.", "image", "one")
    assert Greys().encode(Content(modality="image", tensor=cast(Tensor, picture.value))).tolist() == list(ONE)


def test_what_is_written_does_not_depend_on_what_is_written_beside_it(parts: Path) -> None:
    model = composed(parts)
    prompts = [asked(), [Message(role="user", parts=(words("Show me this: count two, colour red, side left."),))]]
    decoder, library = cast(GreyDecoder, model.decoders["image"]), model.assembly.library  # pyright: ignore[reportAttributeAccessIssue]
    tables = [library.get_input_embeddings()(torch.tensor(model.assembly.preparer.prompt_ids(one))) for one in prompts]  # pyright: ignore[reportAttributeAccessIssue]

    def spelt(numbers: list[int], **settings: object) -> list[list[int]]:
        most = max(len(tables[at]) for at in numbers)
        mask = torch.stack([(torch.arange(most) >= most - len(tables[at])).long() for at in numbers])
        whole = torch.stack([torch.nn.functional.pad(tables[at], (0, 0, most - len(tables[at]), 0)) for at in numbers])
        sources = [torch.Generator().manual_seed(at) for at in numbers]
        with torch.no_grad():
            return spell(library, decoder, (whole, mask), sources, generation(settings)).tolist()

    for settings in ({"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}, {"temperature": 1.0, "top_p": 0.5}):
        both = spelt([0, 1], **settings)
        assert both == [*spelt([0], **settings), *spelt([1], **settings)]
        assert len({*both[0]}) > 1
    assert {code for one in spelt([0, 1], temperature=1.0, top_k=1) for code in one} == {
        code for one in spelt([0, 1], temperature=0.0) for code in one
    }


def test_mistakes(parts: Path) -> None:
    with pytest.raises(ConfigError, match="'greys' is a decoder of image") as caught:
        modalign.compose(parts / "words", decoders={"audio": {"path": str(parts / "greys"), "type": "greys"}})
    assert caught.value.where == "model.decoders.audio.type"
    with pytest.raises(ConfigError, match="codes are written by the language model itself"):
        composed(parts, connector={"heads": 4})
    with pytest.raises(ConfigError, match="would be read twice"):
        modalign.compose(
            parts / "words",
            encoders={"image": {"path": str(_tower(parts))}},
            decoders={"image": {"path": str(parts / "greys"), "type": "greys"}},
        )


def _tower(parts: Path) -> Path:
    from modalign_image.testing import tiny_vision

    if not (parts / "tower").is_dir():
        tiny_vision(parts / "tower", "clip")
    return parts / "tower"


def test_it_is_described(parts: Path) -> None:
    said = str(composed(parts).describe())
    assert f"{SIDE * SIDE} codes of {LEVELS}" in said
