"""Pictures that a checkpoint draws: taught, then drawn as transformers itself would, and seen by what follows."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

import modalign
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.content import Part, Response
from modalign.draws import Draws
from modalign.errors import ConfigError, ModelError
from modalign.model import Model, generation
from modalign.objectives import SFT
from modalign.streaming import Ended, Made, Opened, Said
from modalign.training import Trainer
from modalign_text.generation import generate, pad_left
from modalign_text.multimodal.cases import answer, message
from modalign_text.multimodal.native.cases import FAMILIES, loaded, picture
from modalign_text.multimodal.native.decoder import PictureDecoder
from modalign_text.multimodal.native.drawn import Native

DRAWS = ("emu3", "janus")  # Chameleon's VQ model has no decoder
ASKED = [message("user", "a dog")]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that have learned to say words, open a picture, and say words again."""
    folder = tmp_path_factory.mktemp("taught")
    for family in FAMILIES:
        model = loaded(folder / "new", family)
        row = Comparison.unpaired(ASKED, answer("so:", picture(2), "ok"))
        run = Trainer(
            model=model,
            objective=SFT(),
            data=[replace(row, id=str(number)) for number in range(2)],
            output_dir=folder / "runs" / family,
            max_steps=40,
            learning_rate=5e-3,
            lr_scheduler_type="constant",
            quiet=True,
        )
        run.train()
        model.save(folder / family)
    return folder


def shown(response: Response) -> list[tuple[str, object]]:
    return [(part.modality, part.value if isinstance(part.value, str) else part.digest) for part in response.parts()]


def codes(model: Model, part: Part) -> Tensor:
    """What a picture of this process was made of."""
    writer = cast(Any, model.assembly).writer
    known = writer.pictures._known.get(writer.key(part))
    return known.tensors["codes"]


@pytest.mark.parametrize("family", DRAWS)
def test_words_a_picture_and_words_again(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    assert model.assembly.gives == {"text", "image"}
    (said,) = model.generate([ASKED], max_new_tokens=8)
    assert [(one.modality, one.value if one.modality == "text" else None) for one in said.parts()] == [
        ("text", "so:"),
        ("image", None),
        ("text", "ok"),
    ]
    made = list(said.parts())[1]
    assert cast(Tensor, made.value).dtype == torch.uint8
    assert tuple(cast(Tensor, made.value).shape) == ((3, 24, 24) if family == "emu3" else (3, 32, 32))
    wanted = cast(Any, model.assembly).writer.pictures.run(model.assembly.preparer.media.medium(picture(2)))  # pyright: ignore[reportAttributeAccessIssue]
    if family == "janus":  # of Emu3 the picture it was taught has another size
        assert codes(model, made).tolist() == wanted.tolist()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # its own static cache and generation config warn
@pytest.mark.parametrize("scale", [2.0, 5.0])
def test_janus_draws_the_codes_that_transformers_draws(taught: Path, scale: float) -> None:
    model = loaded(taught / "new", "janus")  # it knows no picture by heart, so that guidance shows
    assembly, preparer = cast(Any, model.assembly), cast(Any, model.assembly.preparer)
    library, processor, tokenizer = assembly.library, assembly.writer.processor, preparer.tokenizer
    begin = tokenizer.convert_tokens_to_ids("<begin_of_image>")
    prompts = [[*preparer.prompt_ids([message("user", said)]), begin] for said in ("a dog", "a very small red cat")]
    prompts = [[tokenizer.bos_token_id, *prompt] for prompt in prompts]
    ids, mask = pad_left(prompts, preparer.pad)
    library.generation_config.generation_kwargs = {"boi_token_id": begin}
    expected = library.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_mode="image",
        do_sample=False,
        guidance_scale=scale,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=preparer.pad,
    )
    drawing = Native(decoder=cast(PictureDecoder, model.decoders["image"]), writer=assembly.writer)
    sources = [torch.Generator() for _ in prompts]

    def drawn(scale: float | None) -> list[Part]:
        given = library.get_input_embeddings()(ids), mask
        return drawing.draw(library, prompts, given, sources, generation({"guidance_scale": scale}))

    made = drawn(scale)
    assert [codes(model, part).tolist() for part in made] == expected.tolist()
    assert [codes(model, part).tolist() for part in drawn(None)] != expected.tolist()
    pixels = library.decode_image_tokens(expected).float()
    wanted = processor.postprocess(list(pixels), return_tensors="pt")["pixel_values"]
    for part, one in zip(made, wanted, strict=True):
        assert (cast(Tensor, part.value).int() - one.int()).abs().max() <= 1


@torch.no_grad()
def test_janus_draws_without_guidance_what_its_parts_say(taught: Path) -> None:
    # transformers' own `generate` fails there: it doubles the batch all the same
    model = modalign.load(taught / "janus")
    library = cast(Any, model.assembly).library
    tokenizer = cast(Any, model.assembly.preparer).tokenizer
    (said,) = model.generate([ASKED], max_new_tokens=8)
    tokens = [*cast(Any, model.assembly.preparer).prompt_ids(ASKED), *tokenizer("so:<begin_of_image>")["input_ids"]]
    inputs = library.get_input_embeddings()(torch.tensor([tokens]))
    expected: list[int] = []
    for _ in range(16):
        state = library.model.language_model(inputs_embeds=inputs).last_hidden_state[:, -1]
        code = library.model.generation_head(state).argmax(-1)
        expected.append(int(code))
        inputs = torch.cat([inputs, library.prepare_embeddings_for_image_generation(code[:, None])], 1)
    assert codes(model, list(said.parts())[1]).tolist() == expected


def test_emu3_draws_the_codes_that_transformers_draws(taught: Path) -> None:
    model = modalign.load(taught / "emu3")
    library = cast(Any, model.assembly).library
    tokenizer = cast(Any, model.assembly.preparer).tokenizer
    (said,) = model.generate([ASKED], max_new_tokens=8)
    made = list(said.parts())[1]
    head = model.assembly.preparer.prompt_ids(ASKED)  # pyright: ignore[reportAttributeAccessIssue]
    begun = tokenizer("so:<|image start|>3*3<|image token|>")["input_ids"]
    ids = torch.tensor([[*head, *begun]])
    eol, visual = tokenizer.convert_tokens_to_ids("<|extra_200|>"), library.vocabulary_mapping.image_tokens
    sampled = library.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=12,
        prefix_allowed_tokens_fn=lambda _, row: [eol] if (len(row) - ids.shape[1]) % 4 == 3 else visual,
    )[0, ids.shape[1] :]
    pictures = cast(Any, model.assembly).writer.pictures
    assert pictures.token_ids(codes(model, made)).tolist() == sampled.tolist()
    pixels = library.decode_image_tokens(image_tokens=torch.nn.functional.pad(sampled, (0, 3))[None], height=3, width=3)
    wanted = cast(Any, model.assembly).writer.processor.postprocess([pixels[0]])["pixel_values"][0]
    assert (cast(Tensor, made.value).int() - pil_to_tensor(wanted).int()).abs().max() <= 1


@pytest.mark.parametrize("family", DRAWS)
def test_what_was_sampled_is_what_is_scored(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    for seed in range(3):
        (said,) = model.generate([ASKED], seed=seed, temperature=1.0, max_new_tokens=8)
        row = Comparison.unpaired(ASKED, said)
        sample = Sample(comparison=row, encoded=model.assembly.preparer.encode(row), own=1)
        with torch.no_grad():
            found = model(assemble([sample], share=False), Draws())
        free = codes(model, next(part for part in said.parts() if part.modality == "image"))
        free = free[free >= 0]
        batch = assemble([sample], share=False)
        decoder = cast(Any, model.decoders["image"])
        units = batch.units["image"]
        assert decoder._codes(batch, units.token, units.segment)[: len(free)].tolist() == free.tolist()
        assert torch.isfinite(found.logps).all()


@pytest.mark.parametrize("family", DRAWS)
def test_what_follows_a_picture_that_was_drawn_sees_its_codes(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    (said,) = model.generate([ASKED], max_new_tokens=8)
    writer, part = cast(Any, model.assembly).writer, list(said.parts())[1]
    seen = writer.seen(part)
    decoder = cast(Any, model.decoders["image"])
    medium = replace(seen.medium, digest=seen.key)
    with torch.no_grad():
        found = decoder.embed(medium) if writer.pictures.apart else cast(Any, model.encoders["image"])([medium])[0]
        torch.testing.assert_close(found, decoder.embedded(codes(model, part)))


@pytest.mark.parametrize("family", DRAWS)
def test_seeds_neighbours_and_limits(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    warm = {"temperature": 1.0, "max_new_tokens": 8}
    one, same, other = (shown(model.generate([ASKED], seed=seed, **warm)[0]) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    cold = shown(model.generate([ASKED], max_new_tokens=8)[0])
    assert shown(model.generate([ASKED], max_new_tokens=8, seed=1, temperature=1.0, top_k=1)[0]) == cold
    both = model.generate([ASKED, [message("user", picture(5), "a very long question")]], max_new_tokens=8)
    assert shown(both[0]) == cold
    assert [name for name, _ in shown(model.generate([ASKED], max_new_tokens=8, max_media=0)[0])] == ["text"]


def test_chameleon_says_that_it_cannot_draw(taught: Path) -> None:
    model = modalign.load(taught / "chameleon")
    assert model.assembly.gives == {"text"}
    with pytest.raises(ModelError, match="has no decoder") as caught:
        model.generate([ASKED], max_new_tokens=8)
    assert "max_media=0" in str(caught.value)
    (said,) = model.generate([ASKED], max_new_tokens=8, max_media=0)
    assert {part.modality for part in said.parts()} == {"text"}


def test_guidance_is_for_janus(taught: Path) -> None:
    with pytest.raises(ConfigError, match="without guidance"):
        modalign.load(taught / "emu3").generate([ASKED], max_new_tokens=8, guidance_scale=5.0)
    model = modalign.load(taught / "janus")
    plain, guided = (shown(model.generate([ASKED], max_new_tokens=8, guidance_scale=g)[0]) for g in (1.0, 5.0))
    assert plain[0] == guided[0]


def test_the_size_of_an_emu3_picture_is_an_option_and_is_saved(taught: Path) -> None:
    model = modalign.load(taught / "emu3")
    assert cast(Any, model.assembly).writer.pictures.drawn() == (3, 3)  # saved with the model
    wide = modalign.load(taught / "emu3", options={"image_ratio": "2:1", "image_area": 8 * 8 * 8})
    assert cast(Any, wide.assembly).writer.pictures.drawn() == (2, 4)
    (said,) = wide.generate([ASKED], max_new_tokens=8)
    assert [tuple(cast(Tensor, part.value).shape) for part in said.parts() if part.modality == "image"][:1] == [
        (3, 16, 32)
    ]
    with pytest.raises(ConfigError, match="have one size") as caught:
        modalign.load(taught / "janus", options={"image_area": 64})
    assert caught.value.where == "model.options.image_area"
    with pytest.raises(ConfigError) as caught:
        modalign.load(taught / "janus", options={"image_weight": -1})
    assert caught.value.where == "model.options.image_weight"
    with pytest.raises(ConfigError, match="image_weight"):
        modalign.load(taught / "janus", options={"image_wait": 1})


@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_about_a_picture_as_transformers_does(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    prompt = [message("user", "look: ", picture(7), " what?")]
    (said,) = model.generate([prompt], max_new_tokens=6, max_media=0)
    assembly, preparer = cast(Any, model.assembly), cast(Any, model.assembly.preparer)
    one, writer = preparer.prompt(prompt), assembly.writer
    ids = generate(
        assembly.library,
        [one.tokens],
        generation({"max_new_tokens": 6}),
        stops=assembly.stops,
        pad=preparer.pad,
        media={name: value for name, value in assembly.given(model, one).items() if name != "cache"},
        never=sorted(writer.never | writer.openers.keys()),
    )
    assert [part.value for part in said.parts()] == [preparer.words(ids[0])]


@pytest.mark.parametrize("family", FAMILIES)
def test_codes_do_not_depend_on_the_precision_around_them(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    pictures, medium = cast(Any, model.assembly).writer.pictures, cast(Any, model.assembly.preparer).media.medium
    plain = [pictures.run(medium(picture(seed))).tolist() for seed in range(4)]
    with torch.autocast("cpu", torch.bfloat16):
        assert [pictures.run(medium(picture(seed))).tolist() for seed in range(4)] == plain


@pytest.mark.parametrize("family", DRAWS)
def test_a_picture_is_told_as_it_is_opened_and_made(taught: Path, family: str) -> None:
    model = modalign.load(taught / family)
    events = list(model.stream(ASKED, max_new_tokens=8))
    assert [type(one) for one in events if not isinstance(one, Said)] == [Opened, Made, Ended]
    assert shown(cast(Ended, events[-1]).response) == shown(model.generate([ASKED], max_new_tokens=8)[0])
