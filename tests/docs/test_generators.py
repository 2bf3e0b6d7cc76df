"""docs/generators.md, walked as a new user walks it: rows, commands, configs, code, and the errors it promises."""

import importlib
import importlib.util
import math
import re
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final, Protocol, cast

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

import modalign
import modalign.loading
import modalign.training.job
from modalign.content import Message, Part
from modalign.data import read
from modalign.data.prepared import prepare
from modalign.errors import DataError, ModalignError
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.peft import LoraAdapters
from modalign.objectives import DPO
from modalign.training.storage.metricslog import read_metrics
from tiny_hub import BLOCK, LOAD, QUIET, TINY, local, run

pytestmark = [*QUIET, pytest.mark.usefixtures("walked")]

PAGE = (Path(__file__).parents[2] / "docs/generators.md").read_text()
USED, WRONG = PAGE.split("## Mistakes")
BLOCKS = re.findall(BLOCK, PAGE, re.M | re.S)
ROWS = re.findall(r'^```json title="taste/mistake.jsonl"\n(.*?)^```\n\n```text\n(.*?)^```', PAGE, re.M | re.S)
COMMANDS = re.findall(r"^```bash\n(modalign [^\n]*)\n```\n\n```text\n(.*?)^```", PAGE, re.M | re.S)

#: what rows are tried on, by the files they name: the sizes that the page tells of
MODELS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "sounds": ("cvssp/audioldm2", {"seconds": 10}),
    "clips": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", {"num_frames": 33}),
    "pictures": ("stable-diffusion-v1-5/stable-diffusion-v1-5", {"height": 512, "width": 512}),
}


# --- the walk ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_the_page_can_be_followed_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, int] = {}
    spaces: list[dict[str, object]] = []
    latents = Calls(PipelineDenoiser.latents)
    monkeypatch.setattr(PipelineDenoiser, "latents", latents)
    forward = Calls(PipelineDenoiser.forward)
    monkeypatch.setattr(PipelineDenoiser, "forward", forward)
    for language, _, text in re.findall(BLOCK, USED, re.M | re.S):
        for line in text.splitlines() if language == "bash" else ():
            latents.count = forward.count = 0
            assert run(line) in (0, None), line
            trained[line] = forward.count
        if language == "python":
            spaces.append({})
            exec(compile(text, "docs/generators.md", "exec"), spaces[-1])
    assert "every row can be used" in capsys.readouterr().out
    assert {line.split()[1] for line in trained} == {"data", "train", "evaluate"}
    assert {line.split()[2] for line in trained if "train" in line} >= {"sft", "dpo", "kto"}

    losses = {
        one.parent.name: [row["loss"] for row in read_metrics(one) if "loss" in row]
        for one in Path("runs").glob("*/metrics.jsonl")
    }
    assert all(math.isfinite(loss) for found in losses.values() for loss in found)
    # log 2 at the start, of DPO with new adapters; 1/2 of KTO
    assert all(
        losses[name][0] == math.log(2)
        for name in ("pictures", "sounds", "clips", "second", "small", "draws", "t2i", "t2a", "t2v", "safesora")
    )
    assert losses["liked"][0] == 0.5

    # the last line, with both caches: media are encoded in the 2 steps of the first epoch, and the networks run for
    # policy and reference in these, for the policy alone in the 4 steps after
    assert (latents.count, forward.count) == (2, 2 * 2 + 4)

    beta, lora, peft, merged = spaces
    assert beta["beta"] == 5000 / 256  # 4 by 8 by 8 latents of the tiny one
    for space, final in ((lora, "runs/pictures/final"), (merged, "runs/good/final")):
        torch.testing.assert_close(made_by(space["pipe"]), made_by_ours(final), atol=1e-5, rtol=0)
    merged_here = cast(torch.nn.Module, vars(peft["pipe"])["unet"]).state_dict()
    adapters = cast(LoraAdapters, LOAD("runs/sounds/final").assembly.adapters)
    for name, value in adapters.merged().items():
        torch.testing.assert_close(merged_here[name], value)


class Calls:
    """A method that counts how often it is called."""

    def __init__(self, method: Callable[..., object]) -> None:
        self.method, self.count = method, 0

    def __get__(self, instance: object, owner: type) -> Callable[..., object]:
        def call(*args: object) -> object:
            self.count += 1
            return self.method(instance, *args)

        return call


class Made(Protocol):
    """What a pipeline gives."""

    images: Tensor


def made_by(pipe: object) -> Tensor:
    source = [torch.Generator().manual_seed(1_000_003)]  # what modalign takes for the first prompt of seed 1
    asked = {"height": 16, "width": 16, "num_inference_steps": 2, "output_type": "pt", "generator": source}
    return cast("Callable[..., Made]", pipe)(["a cat"], **asked).images[0]


def made_by_ours(folder: str) -> Tensor:
    asked = [[Message(role="user", parts=(Part(modality="text", value="a cat"),))]]
    (response,) = LOAD(folder).generate(asked, seed=1, num_inference_steps=2)
    (part,) = response.parts()
    return cast(Tensor, part.value)


@pytest.mark.parametrize("title", [title for _, title, _ in BLOCKS if title.endswith(".jsonl") and "mis" not in title])
def test_the_rows_of_the_page_can_be_used(title: str) -> None:
    assert run(f"modalign data check {title}") == 0


# --- mistakes ------------------------------------------------------------------------------------------------------


def words(text: str) -> str:
    return " ".join(text.split())


def test_there_are_mistakes() -> None:
    assert len(ROWS) == PAGE.count('taste/mistake.jsonl"\n') >= 7
    assert len(COMMANDS) == WRONG.count("```bash") >= 9


@pytest.mark.parametrize(("row", "said"), ROWS, ids=[words(said).split(": ")[1][:50] for _, said in ROWS])
def test_a_row_that_cannot_be_used_says_what_the_page_says(row: str, said: str, there: Path) -> None:
    Path("taste/mistake.jsonl").write_text(row)
    name, options = next(model for kind, model in MODELS.items() if f'"{kind}/' in row)
    model = LOAD(str(local(there, name)), options=options)
    with pytest.raises(DataError) as found:
        prepare(read("taste/mistake.jsonl"), model.assembly.preparer, DPO().needs)
    # after the count of bad rows stands each with its reason
    assert words(said) in [line.strip() for line in str(found.value).splitlines()]


@pytest.mark.parametrize(("line", "said"), COMMANDS, ids=[words(said)[:50] for _, said in COMMANDS])
def test_a_command_that_cannot_work_says_what_the_page_says(
    line: str, said: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torchsde" else find(name, package)

    monkeypatch.setattr("modalign_audio.generators.loader.find_spec", without)
    with pytest.raises(ModalignError) as found:
        run(line)
    message = words(str(found.value))
    for name in TINY:
        message = message.replace(str(local(there, name)), name)
    begins, cut, _ = words(said).partition(" ...")
    assert message.startswith(begins) if cut else message == begins


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_the_files_of_a_run_are_those_of_the_page(there: Path) -> None:
    rows = re.findall(r"^\| (`.*?) \| .*? \|$", USED[USED.index("## 7.") : USED.index("## 8.")], re.M)
    told = {name for row in rows for name in re.findall(r"`([\w.]+\.(?:md|json|safetensors))`", row)}
    lora = {"pytorch_lora_weights.safetensors"}
    for name, expected in (("stable-diffusion-v1-5/stable-diffusion-v1-5", told), ("cvssp/audioldm2", told - lora)):
        folder = there / "saved" / name
        LOAD(str(local(there, name)), adapter={"r": 2}).save(folder)
        assert {one.name for one in folder.iterdir()} | {"README.md"} == expected


def test_without_adapters_the_whole_network_trains() -> None:
    model = modalign.load("stable-diffusion-v1-5/stable-diffusion-v1-5")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = modalign.Trainer(
        model=model,
        objective=DPO(),
        data=read("taste/pictures.jsonl"),
        output_dir="runs/whole",
        max_steps=2,
        learning_rate=1e-3,
        quiet=True,
    )
    result = trainer.train()
    (first, _) = (row["loss"] for row in read_metrics(result.folder / "metrics.jsonl"))
    assert first == math.log(2)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert all("network." in name for name in moved)
    whole = DiffusionPipeline.from_pretrained("runs/whole/final")
    torch.testing.assert_close(made_by(whole), made_by_ours("runs/whole/final"), atol=1e-5, rtol=0)
