"""A hub of tiny models for the pages of the docs: what stands in for what they name, and the files of their rows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import AutoModelForMultimodalLM, AutoProcessor

import modalign
import modalign.composing
import modalign.loading
import modalign.reward
import modalign.training.job
from modalign.cli.app import app
from modalign.config import DecoderConfig, EncoderConfig, ModelConfig
from modalign.errors import ModalignError
from modalign.loading import configure
from modalign.model import Model
from modalign_audio.generators.testing import audioldm2
from modalign_audio.testing import tiny_audio
from modalign_image.generators.testing_unet import stable_diffusion
from modalign_image.pick_a_pic_sample import sample as pick_a_pic
from modalign_image.testing import tiny_vision
from modalign_text.align_anything_sample import sample as align_anything
from modalign_text.multimodal import makers
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model
from modalign_video.generators.testing import wan
from modalign_video.safesora_sample import sample as safesora
from modalign_video.testing import numbered_clip

BLOCK: Final = r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```'  #: of a page: its language, title and text
LOAD: Final = modalign.loading.load
assert vars(makers)["load"] is LOAD  # what generators are loaded by is taken before a page's own is put in its place

#: warnings of libraries that nobody who follows a page can help
QUIET: Final = [
    # Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    # AudioLDM 2 of diffusers 0.42.1 has GPT-2 go on from what it kept, by the name that had before transformers 5.24.
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),
]

Part = TypeVar("Part", EncoderConfig, DecoderConfig)

#: what stands in for the models that pages name, and what makes them quick
TINY: Final[dict[str, tuple[Callable[[Path], Path], dict[str, object]]]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (stable_diffusion, {"height": 16, "width": 16}),
    "cvssp/audioldm2": (audioldm2, {"seconds": 0.32}),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": (wan, {"height": 16, "width": 16, "num_frames": 5}),
    "Qwen/Qwen2.5-VL-3B-Instruct": (lambda folder: tiny_multimodal(folder, "qwen2_5_vl"), {}),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (tiny_model, {}),
    "openai/clip-vit-base-patch32": (lambda folder: tiny_vision(folder, "clip"), {}),
    "facebook/wav2vec2-base-960h": (lambda folder: tiny_audio(folder, "wav2vec2"), {}),
    "deepseek-community/Janus-Pro-1B": (lambda folder: eager(folder, "janus"), {}),
    "BAAI/Emu3-Chat-hf": (lambda folder: eager(folder, "emu3"), {"image_area": 24 * 24}),
    "facebook/chameleon-7b": (lambda folder: eager(folder, "chameleon"), {}),
    "Qwen/Qwen2-Audio-7B-Instruct": (lambda folder: tiny_multimodal(folder, "qwen2_audio"), {}),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": (lambda folder: wan(folder, networks=2), {}),
    "kandinsky-community/kandinsky-2-2-decoder": (lambda folder: named(folder, "KandinskyV22Pipeline"), {}),
    "stabilityai/stable-audio-open-1.0": (
        lambda folder: named(
            folder, "StableAudioPipeline", scheduler=["diffusers", "CosineDPMSolverMultistepScheduler"]
        ),
        {},
    ),
}


SIZES: Final = ("height", "width", "seconds", "num_frames", "duration_buckets")  #: options that say how much work it is


def named(folder: Path, name: str, **parts: object) -> Path:
    """A folder that says which pipeline it is of, and has none of its parts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name, **parts}))
    return folder


def eager(folder: Path, family: str) -> Path:
    """A checkpoint that draws, and opens a picture in one of two tokens or so."""
    tiny_multimodal(folder, family)
    library = AutoModelForMultimodalLM.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    begin = processor.tokenizer.convert_tokens_to_ids(processor.image_start_token)
    with torch.no_grad():
        library.get_output_embeddings().weight[begin] *= 80
    library.save_pretrained(folder)
    return folder


def make(place: Path) -> None:
    """One file of the kind that its name says, different for each name."""
    import soundfile
    from PIL import Image

    place.parent.mkdir(parents=True, exist_ok=True)
    number = 1 + int(place.stem[-1]) if place.stem[-1].isdigit() else 0
    source = torch.Generator().manual_seed(int.from_bytes(place.stem.encode()) % 2**63)
    match place.suffix:
        case ".png":
            wide = 128 if place.stem == "wide" else 64
            Image.fromarray(torch.randint(0, 256, (64, wide, 3), generator=source).byte().numpy()).save(place)
        case ".wav":
            seconds = 2 if place.stem == "short" else 10
            sound = torch.rand(16_000 * seconds, generator=source) / 4
            soundfile.write(place, sound.numpy(), 16_000, subtype="PCM_16")
        case _:
            frames = {"short": 20, "long": 80}.get(place.stem, 38 + number)
            place.write_bytes(numbered_clip(frames, rate=16))


def fill(folder: Path, page: str) -> None:
    """Write what a page's commands read: its titled blocks, media of its rows, public data, and the tiny models."""
    for name in sorted(set(re.findall(r'"((?:pictures|sounds|clips)/[\w-]+\.\w+)"', page))):
        make(folder / "taste" / name)
        make(folder / "rows" / name)
    for language, title, text in re.findall(BLOCK, page, re.M | re.S):
        if title and language != "python" and "mistake" not in title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(text)
    for name, (made, _) in TINY.items():
        if name in page:
            made(local(folder, name))
    for subset in ("t2i", "t2a", "t2v"):
        if f"align-anything/{subset}/" in page:
            align_anything(folder / "align-anything" / subset, subset, 3)
    if "SafeSora/" in page:
        safesora(folder / "SafeSora", "pairs", 4)
        safesora(folder / "SafeSora", "prompts", 2)
    if "pick-a-pic/" in page:
        pick_a_pic(folder / "pick-a-pic", 4)


def local(there: Path, name: str) -> Path:
    return there / "models" / name.replace("/", "-")


@contextmanager
def at_home(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a page's folder, where an id on the hub is one of its tiny models."""

    def quick(model: str | Path | ModelConfig, **settings: object) -> Model:
        config = configure(model, **settings)
        if config.path not in TINY:  # a run's model, which was made small
            rest = {name: value for name, value in config.options.items() if name not in SIZES}
            return LOAD(config.model_copy(update={"options": rest}))
        _, less = TINY[config.path]
        config = config.model_copy(update={"path": str(local(folder, config.path))})
        if config.options:
            LOAD(config)  # what the page says can be asked for, and is asked for smaller
        rest = {name: value for name, value in config.options.items() if name != "duration_buckets"}
        whole = {"options": {**rest, **less}, "encoders": placed(config.encoders), "decoders": placed(config.decoders)}
        return LOAD(config.model_copy(update=whole))

    def placed(parts: Mapping[str, Part]) -> dict[str, Part]:
        found: dict[str, Part] = {}
        for name, one in parts.items():
            if one.path not in TINY:  # what the page itself has made
                found[name] = one
                continue
            path, less = str(local(folder, one.path)), TINY[one.path][1]
            found[name] = one.model_copy(update={"path": path, "options": {**one.options, **less}})
        return found

    from_pretrained = DiffusionPipeline.from_pretrained

    def here(path: str, **settings: object) -> object:
        return from_pretrained(str(local(folder, path)) if path in TINY else path, **settings)

    for module in (modalign, modalign.loading, modalign.training.job, modalign.reward, modalign.composing):
        patch.setattr(module, "load", quick, raising=False)
    patch.setattr(DiffusionPipeline, "from_pretrained", here)
    patch.chdir(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(line: str) -> object:
    return app(shlex.split(line)[1:], exit_on_error=False, print_error=False, result_action="return_value")


def check_refused(line: str, said: str, there: Path) -> None:
    """A command must be refused in the words that a page promises, which name models and no folders."""
    with pytest.raises(ModalignError) as found:
        run(line)
    message = " ".join(str(found.value).split())
    for name in TINY:
        message = message.replace(str(local(there, name)), name)
    assert " ".join(said.split()) in message
