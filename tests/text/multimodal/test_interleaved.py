"""Words, pictures, sounds and clips in one response: scored segment by segment, written the way they are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import modalign
from modalign.assembler import Sample, assemble, encode
from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.draws import Draws
from modalign.errors import CheckpointError, ConfigError, DataError, Foreign, ModelError
from modalign.integrations.painter import PainterDenoiser
from modalign.model import Model
from modalign.objectives import DPO, IPO, KTO, SFT
from modalign.objectives.base import Objective
from modalign.registry import registry
from modalign.roles import Encoded
from modalign.training import Trainer
from modalign.world.painter import Painter
from modalign_audio.generators.testing import audioldm2
from modalign_image.generators.testing import stable_diffusion_3
from modalign_image.testing import tiny_vision
from modalign_text.multimodal import interleaved
from modalign_text.multimodal.makers import closes, opens
from modalign_text.testing import tiny_model
from modalign_video.generators.testing import wan

MEDIA = ("image", "audio", "video")
CONNECTOR: Mapping[str, object] = {"heads": 4}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a language model, a generator of each modality whose network says something, and a tower."""
    folder = tmp_path_factory.mktemp("parts")
    registry.depiction("text").student(folder / "words")
    for name in MEDIA:
        registry.depiction(name).student(folder / name)
        made = modalign.load(folder / name)
        network = cast(Painter, cast(PainterDenoiser, decoder(made, name).denoiser).network)
        for number, value in enumerate(network.parameters()):  # a new one begins with gates that are shut
            if not value.any():
                torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(number))
        made.save(folder / name)
    tiny_vision(folder / "tower", "clip")
    return folder


def decoder(model: Model, name: str) -> DenoisingDecoder:
    return cast(DenoisingDecoder, model.decoders[name])


def composed(parts: Path, **settings: object) -> Model:
    adapter, reads = settings.get("adapter"), settings.pop("reads", "queries")
    connector = {**CONNECTOR, "reads": reads}
    decoders = {name: {"path": str(parts / name), "connector": connector, "adapter": adapter} for name in MEDIA}
    encoders = {"image": {"path": str(parts / "tower")}}
    model = modalign.load(parts / "words", decoders=decoders, encoders=encoders, **settings)
    return model.eval()


@pytest.fixture(scope="module", params=["queries", "states"])
def model(parts: Path, request: pytest.FixtureRequest) -> Model:
    """For what changes nothing of it."""
    return composed(parts, reads=request.param)


def words(value: str) -> Part:
    return Part(modality="text", value=value)


def shown(modality: str, seed: int) -> Part:
    """A medium of some concept."""
    from modalign.world.concept import concepts

    depiction = registry.depiction(modality)
    every = list(concepts(depiction.attributes))
    return depiction.depict(every[seed % len(every)], seed=seed)


def response(seed: int = 0) -> Response:
    said = (
        words("two red circles."),
        shown("image", seed),
        words("one"),
        shown("audio", seed),
        shown("video", seed),
        words("early"),
    )
    return Response(messages=(Message(role="assistant", parts=said),))


def asked() -> list[Message]:
    return [Message(role="user", parts=(words("Show me this: count two, colour red."),))]


def pairs() -> list[Comparison]:
    return [replace(Comparison.pair(asked(), response(at), response(at + 7)), id=f"pair-{at}") for at in range(2)]


def batch(model: Model, objective: Objective, *, share: bool = True) -> Batch:
    rows = pairs()
    samples = [
        encode(one, model.assembly.preparer, objective.needs, partner=other if objective.needs.mismatched else None)
        for one, other in zip(rows, rows[::-1], strict=True)
    ]
    return assemble(samples, share=share)


def alone(one: Encoded, key: str = "pair-0") -> Sample:
    comparison = replace(Comparison.unpaired(asked(), response()), id=key)
    return Sample(comparison=comparison, encoded=(one,), own=1)


def test_media_that_weigh_nothing_are_context_only(parts: Path) -> None:
    decoders = {name: {"path": str(parts / name), "connector": CONNECTOR, "weight": 0} for name in MEDIA}
    model = modalign.load(parts / "words", decoders=decoders).eval()
    found = model(batch(model, DPO()), Draws(seed=1))
    spoken = [number for number, weight in enumerate(found.weight.tolist()) if weight]
    assert 0 < len(spoken) < len(found.weight)
    sums = torch.zeros_like(found.logps).index_add(0, found.response[spoken], found.segments[spoken])
    assert torch.equal(found.logps, sums)
    assert found.drawn[1].tolist() == [0.0] * len(found.logps)


# --- segments ------------------------------------------------------------------------------------------------------


def test_a_response_has_a_segment_for_each_run_of_words_and_each_medium(model: Model) -> None:
    (one, _) = model.assembly.preparer.encode(pairs()[0])
    tokenizer = model.assembly.preparer.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    scored = [
        "".join(tokenizer.convert_ids_to_tokens(one.tokens[segment.start : segment.stop]))
        for segment in one.segments
        if segment.kind == "token"
    ]
    # what opens a medium is said, and so scored; what closes it is given
    assert scored == ["▁two▁red▁circles.<|image|>", "▁one<|audio|>", "<|video|>", "▁early<end>"]
    drawn = [segment for segment in one.segments if segment.kind == "draw"]
    assert [segment.decoder for segment in drawn] == ["image", "audio", "video"]
    names = tokenizer.convert_ids_to_tokens([one.tokens[segment.after - 1] for segment in drawn])
    assert names == [opens(name) for name in MEDIA]
    assert {(len(segment.query), segment.last) for segment in drawn} in ({(8, 0)}, {(0, 8)})
    after = one.slots[0].stop
    assert tokenizer.convert_ids_to_tokens(one.tokens[after]) == closes("image")


def test_a_log_likelihood_is_the_sum_of_its_segments_scored_alone(model: Model) -> None:
    (one, _) = model.assembly.preparer.encode(pairs()[0])
    draws = Draws(seed=3, count=2)
    with torch.no_grad():
        whole = model(assemble([alone(one)], share=False), draws).logps
        each = [
            model(assemble([alone(replace(one, segments=(segment,)))], share=False), draws).logps
            for segment in one.segments
        ]
    torch.testing.assert_close(whole, torch.stack(each).sum(0), rtol=1e-5, atol=0)


def test_branches_of_one_prompt_score_as_rows_of_their_own(model: Model) -> None:
    draws = Draws(seed=3)
    with torch.no_grad():
        shared, apart = (model(batch(model, DPO(), share=share), draws) for share in (True, False))
    torch.testing.assert_close(shared.segments, apart.segments, rtol=1e-5, atol=1e-6)


def test_weights_count_media_more_or_less(parts: Path) -> None:
    decoders = {name: {"path": str(parts / name), "connector": CONNECTOR, "weight": 0.25} for name in MEDIA}
    light = modalign.load(parts / "words", decoders=decoders).eval()
    with torch.no_grad():
        scores = light(batch(light, DPO()), Draws(seed=1))
    drawn = torch.tensor([one.kind == "draw" for one in batch(light, DPO()).segments])
    assert scores.weight.tolist() == torch.where(drawn, 0.25, 1.0).tolist()
    expected = torch.zeros(4, dtype=torch.float64).index_add(0, scores.response, scores.segments * scores.weight)
    torch.testing.assert_close(scores.logps, expected)


def test_a_target_does_not_leak_into_its_own_condition_and_is_seen_by_what_follows(model: Model) -> None:
    given: list[Tensor] = []
    conditioner = decoder(model, "image").conditioner
    assert conditioner is not None
    handle = conditioner.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    try:
        found = []
        for seed in (0, 5):
            said = list(response().messages[0].parts)
            said[1] = shown("image", seed)
            row = Comparison.unpaired(asked(), Response(messages=(Message(role="assistant", parts=tuple(said)),)))
            (one,) = model.assembly.preparer.encode(row)
            with torch.no_grad():
                found.append(model(assemble([alone(one)], share=False), Draws(seed=1)).segments)
    finally:
        handle.remove()
    assert torch.equal(given[0], given[1])
    # words, words after the picture, and after the sound, the end; the picture itself is left out
    before, *behind = (found[0] - found[1]).abs()[[0, 1, 2, 3, 5, 6]].tolist()
    assert before == 0.0  # the words before it, and the token that opens it
    assert min(behind) > 0.0  # words after it, the sound and the clip


def test_the_last_states_condition_a_medium_and_queries_stand_for_what_a_short_sequence_lacks(parts: Path) -> None:
    model = composed(parts, reads="states")
    (one, _) = model.assembly.preparer.encode(pairs()[0])
    (drawn,) = [segment for segment in one.segments if segment.decoder == "image"]
    conditioner = decoder(model, "image").conditioner
    assert conditioner is not None
    given: list[Tensor] = []
    handle = conditioner.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    library = model.assembly.library  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        model(assemble([alone(replace(one, segments=(drawn,)))], share=False), Draws(seed=1))
        states = library.get_decoder()(torch.tensor([one.tokens[: drawn.after]])).last_hidden_state[0]
        torch.testing.assert_close(given[0][0], states[-8:], rtol=1e-5, atol=1e-5)
        short = replace(one, tokens=one.tokens[:3], prompt=3, segments=(replace(drawn, after=3),), slots=())
        model(assemble([alone(short)], share=False), Draws(seed=1))
        torch.testing.assert_close(given[1][0], torch.cat([conditioner.queries[:5], states[:3]]), rtol=1e-5, atol=1e-5)
    handle.remove()


def test_gradients_reach_every_part(parts: Path) -> None:
    model = composed(parts)
    model(batch(model, SFT()), Draws(seed=1)).logps.sum().backward()
    still = [name for name, value in model.trainable().items() if value.grad is None or not bool(value.grad.any())]
    # a painter has its own phrases, which nothing asks for here
    assert {name.split(".")[-2] for name in still} <= {"phrase"}
    assert not any(value.requires_grad for value in model.encoders.parameters())


def test_a_dropped_prompt_leaves_nothing_of_the_states(model: Model) -> None:
    rows = batch(model, SFT())
    other = replace(rows, tokens=rows.tokens.clone())
    other.tokens[:, 6] += 1  # another word in every prompt
    drawn = torch.tensor([one.kind == "draw" for one in rows.segments])
    with torch.no_grad():
        kept, changed = (model(one, Draws(seed=1)).segments for one in (rows, other))
        dropped, still = (model(one, Draws(seed=1, prompt_dropout=0.999999)).segments for one in (rows, other))
    assert not torch.allclose(kept[drawn], changed[drawn])
    torch.testing.assert_close(dropped[drawn], still[drawn], rtol=0, atol=0)
    assert not torch.allclose(dropped[drawn], kept[drawn])


def test_spans_of_a_sound_score_a_part_of_it(model: Model) -> None:
    def scored(spans: tuple[tuple[float, float], ...]) -> Tensor:
        said = tuple(replace(part, spans=spans) if part.modality == "audio" else part for part in response().parts())
        row = Comparison.unpaired(asked(), Response(messages=(Message(role="assistant", parts=said),)))
        (one,) = model.assembly.preparer.encode(row)
        with torch.no_grad():
            return model(assemble([alone(one)], share=False), Draws(seed=1)).segments[5]

    whole, first, second = (scored(spans) for spans in ((), ((0.0, 0.4),), ((0.4, 1.0),)))
    torch.testing.assert_close(first + second, whole)
    assert whole < first < 0


def test_a_sequence_that_is_cut_keeps_its_media_behind_the_tokens_that_open_them(model: Model) -> None:
    preparer = model.assembly.preparer
    long = [Message(role="user", parts=(words("Show me this: count two, colour red. " * 5),))]
    row = Comparison.unpaired(long, response())
    (whole,) = preparer.encode(row)
    (cut,) = preparer.encode(row, max_length=len(whole.tokens) - 20, truncate="prompt")
    for one, other in zip(whole.segments, cut.segments, strict=True):
        assert (one.digest, one.kind) == (other.digest, other.kind)
        if one.kind == "draw":
            assert cut.tokens[: other.after][-1] == whole.tokens[one.after - 1]
    last = whole.segments[-1]
    (short,) = preparer.encode(row, max_length=last.after - 1, truncate="response")
    assert [one.decoder for one in short.segments if one.kind == "draw"] == ["image", "audio"]
    assert last.digest not in short.media


def test_a_batch_of_words_reaches_every_decoder_so_that_no_process_waits(parts: Path) -> None:
    model = composed(parts)
    row = Comparison.unpaired(asked(), Response(messages=(Message(role="assistant", parts=(words("one"),)),)))
    (one,) = model.assembly.preparer.encode(row)
    scores = model(assemble([alone(one)], share=False), Draws(seed=1))
    sum(units.values.sum() for units in scores.units.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    trained = {name: value for name, value in model.trainable().items() if name.startswith("decoders.")}
    assert any(".conditioner." in name for name in trained)
    assert not [name for name, value in trained.items() if value.grad is None]


# --- objectives ----------------------------------------------------------------------------------------------------


def test_at_adapter_start_every_log_ratio_is_zero(parts: Path) -> None:
    model = composed(parts, adapter={"r": 2})
    adapters = model.assembly.adapters
    assert adapters is not None
    for objective, expected in ((DPO(), math.log(2)), (IPO(beta=0.5), 1.0), (KTO(), 0.5)):
        rows, draws = batch(model, objective), Draws(seed=2, count=2)
        policy = model(rows, draws)
        with torch.no_grad(), adapters.off():
            reference = model(rows, draws)
        assert torch.equal(policy.segments, reference.segments)
        loss = objective({"policy": policy, "reference": reference}, rows.targets).mean
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_rows_of_new_tokens_train_with_the_adapters_and_are_off_with_them(parts: Path, tmp_path: Path) -> None:
    model, fresh = composed(parts, adapter={"r": 2}), composed(parts)
    adapters = model.assembly.adapters
    assert adapters is not None
    with torch.no_grad():
        for number, value in enumerate(adapters.parameters()):
            value.add_(0.02 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
        rows, draws = batch(model, DPO()), Draws(seed=2)
        moved = model(rows, draws).segments
        with adapters.off():
            torch.testing.assert_close(model(rows, draws).segments, fresh(rows, draws).segments, rtol=1e-6, atol=1e-6)
        model.save(tmp_path / "merged", merge=True)
        merged = modalign.load(tmp_path / "merged").eval()
        assert merged.assembly.adapters is None
        torch.testing.assert_close(merged(rows, draws).segments, moved, rtol=1e-3, atol=1e-3)
    table, found = (one.state_dict()["backbone.decoder.embed_tokens.weight"] for one in (fresh, merged))
    tokenizer = model.assembly.preparer.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    new = {tokenizer.convert_tokens_to_ids(name) for one in MEDIA for name in (opens(one), closes(one))}
    assert {at for at in range(len(table)) if not torch.equal(table[at], found[at])} == new


@pytest.mark.parametrize(
    ("adapter", "reads"), [(None, "queries"), ({"r": 4}, "queries"), ({"r": 4}, "states")], ids=str
)
def test_a_run_learns_and_its_model_is_one_folder(
    parts: Path, tmp_path: Path, adapter: dict[str, object] | None, reads: str
) -> None:
    model = composed(parts, adapter=adapter, reads=reads)
    trainer = Trainer(
        model=model,
        objective=DPO(),
        data=pairs(),
        eval_data=pairs(),
        output_dir=tmp_path / "run",
        max_steps=6,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        quiet=True,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert before == pytest.approx(math.log(2), rel=1e-12)
    assert after < 0.6
    again = modalign.load(tmp_path / "run" / "final").eval()
    rows, draws = batch(model, DPO()), Draws(seed=5)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(rows, draws).segments, again(rows, draws).segments)
    first, second = (one.generate([asked()], seed=1, temperature=1.0, num_inference_steps=2) for one in (model, again))
    assert [part.digest for part in first[0].parts()] == [part.digest for part in second[0].parts()]


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["queries", "states"])
def eager(parts: Path, request: pytest.FixtureRequest) -> Model:
    """A model that opens media often, each of them as often, and comes to an end."""
    model = composed(parts, reads=request.param)
    tokenizer = model.assembly.preparer.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    ids = [tokenizer.convert_tokens_to_ids(opens(name)) for name in MEDIA]
    head = cast(torch.nn.Linear, model.decoders["text"].head)
    with torch.no_grad():
        head.weight[ids] = 0.4 * torch.randn(head.weight.shape[1], generator=torch.Generator().manual_seed(0))
        head.weight[tokenizer.eos_token_id] = 0.8 * head.weight[ids[0]]
    return model


def written(model: Model, count: int = 4, **settings: object) -> list[Response]:
    stated = {"seed": 3, "temperature": 1.0, "max_new_tokens": 12, "num_inference_steps": 2, **settings}
    return model.generate([asked()] * count, **stated)


def test_words_and_media_are_written_and_are_seeded(eager: Model) -> None:
    found = written(eager, 16)
    kinds = {part.modality for one in found for part in one.parts()}
    assert kinds == {"text", *MEDIA}
    digests = [[part.digest for part in one.parts()] for one in found]
    assert digests == [[part.digest for part in one.parts()] for one in written(eager, 16)]
    assert digests != [[part.digest for part in one.parts()] for one in written(eager, 16, seed=4)]


def test_responses_of_different_batches_are_drawn_apart(eager: Model) -> None:
    found = written(eager, 4, batch_size=1)
    said = {
        tuple(part.value if isinstance(part.value, str) else part.modality for part in one.parts()) for one in found
    }
    assert len(said) > 1  # one prompt, asked four times


def test_what_is_written_is_the_sequence_that_is_scored(eager: Model) -> None:
    seen: list[tuple[int, ...]] = []
    assembly, ended = eager.assembly, interleaved.Writer._end

    def noting(self: interleaved.Writer, line: interleaved._Line) -> None:
        seen.append(tuple(line.tokens))
        ended(self, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaved.Writer, "_end", noting)
        found = written(eager, 16, batch_size=16)
    rows = [Comparison.unpaired(asked(), one) for one in found if len(list(one.parts())) > 1]
    again = {assembly.preparer.encode(row)[0].tokens for row in rows}
    # others were cut, or say tokens of the template, which are no words
    assert len(again.intersection(seen)) >= 2


def test_a_response_has_so_many_media_at_most(eager: Model) -> None:
    many = [sum(part.modality != "text" for part in one.parts()) for one in written(eager, 8, max_new_tokens=60)]
    few = [
        sum(part.modality != "text" for part in one.parts())
        for one in written(eager, 8, max_new_tokens=60, max_media=1)
    ]
    assert max(many) > 1
    assert max(few) == 1


def test_media_of_a_response_can_be_read_back_by_their_modality(eager: Model) -> None:
    for one in written(eager, 6):
        for part in one.parts():
            if part.modality != "text":
                settings = registry.modality(part.modality).settings()
                assert registry.modality(part.modality).decode(part, settings).tensor.numel()


# --- what cannot be ------------------------------------------------------------------------------------------------


def test_a_medium_that_is_opened_in_words_is_refused(model: Model) -> None:
    said = Response(messages=(Message(role="assistant", parts=(words(f"here: {opens('image')}"),)),))
    with pytest.raises(DataError, match=r"opens image in words, and never closes it; found: .*<\|image\|>"):
        model.assembly.preparer.encode(Comparison.unpaired(asked(), said))


def test_a_prompt_with_media_that_nothing_reads_is_refused(model: Model) -> None:
    heard = [Message(role="user", parts=(words("What is this?"), shown("audio", 0)))]
    with pytest.raises(Foreign, match=r"field=prompt: .* takes no audio"):
        model.assembly.preparer.encode(Comparison.unpaired(heard, response()))


@pytest.mark.parametrize(
    ("decoders", "what"),
    [
        ({"image": {"path": "audio"}}, r"^model\.decoders\.image: this generator makes no image; found: .*makes audio"),
        ({"image": {"path": "words"}}, r"^model\.decoders\.image: a decoder is a generator of media; found: .*text"),
        (
            {"image": {"path": "image", "connector": {"queries": 9, "heads": 4}}},
            r"^model\.decoders\.image\.connector\.queries: this network reads at most 8 vectors; found: 9",
        ),
        (
            {"image": {"path": "image", "connector": {"heads": 5}}},
            r"^model\.decoders\.image\.connector\.heads: heads must divide the backbone's width",
        ),
        ({"image": {"path": "image", "connector": {"query": 8}}}, r"^model\.decoders\.image\.connector\.query: Extra"),
    ],
)
def test_parts_that_do_not_fit_are_said(parts: Path, decoders: Mapping[str, Mapping[str, object]], what: str) -> None:
    placed = {name: {**one, "path": str(parts / str(one["path"]))} for name, one in decoders.items()}
    with pytest.raises(ConfigError, match=what):
        modalign.load(parts / "words", decoders=placed)


def test_media_of_a_pair_that_differ_too_much_are_refused(parts: Path, tmp_path: Path) -> None:
    options = {"height": 16, "width": 16}
    place = stable_diffusion_3(tmp_path / "sd3")
    model = modalign.load(parts / "words", decoders={"image": {"path": str(place), "options": options}})
    said = [
        Response(messages=(Message(role="assistant", parts=(Part(modality="image", value=torch.rand(3, 16, wide)),)),))
        for wide in (16, 32)
    ]
    with pytest.raises(DataError, match=r"field=rejected: the pictures of this comparison differ in shape"):
        model.assembly.preparer.encode(Comparison.pair(asked(), *said))
    buckets = {**options, "aspect_buckets": [[32, 32], [16, 64]]}
    with pytest.raises(ConfigError, match=r"^model\.decoders\.image\.options: .* makes media of one size"):
        modalign.load(parts / "words", decoders={"image": {"path": str(place), "options": buckets}})


def test_new_tokens_begin_at_the_mean_also_where_a_table_has_rows_to_spare(parts: Path, tmp_path: Path) -> None:
    padded = AutoModelForCausalLM.from_pretrained(parts / "words")
    known = padded.config.vocab_size
    padded.resize_token_embeddings(known + 16, mean_resizing=False)
    padded.save_pretrained(tmp_path / "padded")
    AutoTokenizer.from_pretrained(parts / "words").save_pretrained(tmp_path / "padded")
    decoders = {"image": {"path": str(parts / "image"), "connector": CONNECTOR}}
    model = modalign.load(tmp_path / "padded", decoders=decoders, adapter={"r": 2})
    name = "backbone.decoder.embed_tokens.token_adapter.base_layer.weight"
    table = model.state_dict()[name]
    new = [known, known + 1]
    others = [at for at in range(len(table)) if at not in new]
    torch.testing.assert_close(table[new], table[others].mean(0).expand(2, -1))
    model.save(tmp_path / "saved")
    assert torch.equal(modalign.load(tmp_path / "saved").state_dict()[name], table)


def test_a_backbone_that_cannot_branch_is_refused(parts: Path, tmp_path: Path) -> None:
    recurrent = tiny_model(tmp_path / "mamba", "mamba")
    with pytest.raises(ModelError, match="media cannot be made behind this language model"):
        modalign.load(recurrent, decoders={"image": {"path": str(parts / "image"), "connector": CONNECTOR}})
    # what reads the last states asks for no branches
    connector = {**CONNECTOR, "reads": "states"}
    model = modalign.load(recurrent, decoders={"image": {"path": str(parts / "image"), "connector": connector}}).eval()
    said = Response(messages=(Message(role="assistant", parts=(words("See"), shown("image", 0))),))
    (one,) = model.assembly.preparer.encode(Comparison.unpaired(asked(), said))
    with torch.no_grad():
        assert bool(model(assemble([alone(one)], share=model.shares), Draws(seed=1)).segments.isfinite().all())


def test_a_folder_that_lost_a_file_says_which(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "whole")
    (tmp_path / "whole" / "conditioners.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"conditioners\.safetensors"):
        modalign.load(tmp_path / "whole")


# --- pipelines of diffusers ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("image", stable_diffusion_3, {"height": 16, "width": 16}),
        ("audio", audioldm2, {"seconds": 0.32}),
        ("video", wan, {"height": 16, "width": 16, "num_frames": 5, "fps": 8}),
    ],
)
def test_a_pipeline_stands_behind_a_language_model(
    parts: Path, tmp_path: Path, name: str, make: Callable[[Path], Path], options: dict[str, object]
) -> None:
    decoders = {name: {"path": str(make(tmp_path / name)), "options": options, "adapter": {"r": 2}}}
    model = modalign.load(parts / "words", decoders=decoders, adapter={"r": 2}).eval()
    rows = [
        replace(
            Comparison.pair(
                asked(),
                *(
                    Response(messages=(Message(role="assistant", parts=(shown(name, at), words("one"))),))
                    for at in (0, 5)
                ),
            ),
            id="row",
        )
    ]
    adapters = model.assembly.adapters
    assert adapters is not None
    samples = [encode(row, model.assembly.preparer, DPO().needs) for row in rows]
    given, draws = assemble(samples, share=True), Draws(seed=1)
    policy = model(given, draws)
    with torch.no_grad(), adapters.off():
        assert torch.equal(policy.segments, model(given, draws).segments)
    policy.logps.sum().backward()
    moved = {
        key.split(".")[0] for key, value in model.trainable().items() if value.grad is not None and value.grad.any()
    }
    assert moved == {"backbone", "decoders"}
    model.save(tmp_path / "whole")
    again = modalign.load(tmp_path / "whole").eval()
    with torch.no_grad():
        assert torch.equal(model(given, draws).segments, again(given, draws).segments)
    tokenizer = model.assembly.preparer.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    opener = tokenizer.convert_tokens_to_ids(opens(name))
    with pytest.MonkeyPatch.context() as patch:
        said = iter([[[opener]], [[tokenizer.eos_token_id]]])
        patch.setattr(interleaved, "generate", lambda *_, **__: next(said))
        (found,) = again.generate([asked()], seed=1, num_inference_steps=2)
    (part,) = found.parts()
    assert part.modality == name
    settings = registry.modality(name).settings()
    assert registry.modality(name).decode(part, settings).tensor.numel()
