"""docs/media.md, walked as a new user walks it: its rows, commands, configs and code, and the errors it promises."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import modalign
import modalign.loading
import modalign.training.job
from modalign.cli.app import app
from modalign.config import ModelConfig
from modalign.data import read
from modalign.data.prepared import prepare
from modalign.errors import DataError
from modalign.loading import configure
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training.storage.metricslog import read_metrics
from modalign_audio.testing import tiny_audio
from modalign_image.testing import tiny_vision
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model
from modalign_video.testing import numbered_clip

PAGE = (Path(__file__).parents[2] / "docs/media.md").read_text()
BLOCK = r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```'
BLOCKS = re.findall(BLOCK, PAGE, re.M | re.S)
MISTAKES = re.findall(r'^```json title="pets/mistake.jsonl"\n(.*?)^```\n\n```text\n(.*?)^```', PAGE, re.M | re.S)
FILES = sorted(set(re.findall(r'"((?:pictures|sounds|clips)/\w+\.\w+)"', PAGE)) - {"pictures/bird.png"})

#: what stands in for the checkpoints that the page names
TINY = {
    "Qwen/Qwen2.5-VL-3B-Instruct": lambda folder: tiny_multimodal(folder, "qwen2_5_vl"),
    "HuggingFaceTB/SmolLM2-135M-Instruct": tiny_model,
    "openai/clip-vit-base-patch32": lambda folder: tiny_vision(folder, "clip"),
    "openai/whisper-tiny": lambda folder: tiny_audio(folder, "whisper"),
}


def make(place: Path) -> None:
    """One file of the kind that its name says; `cut` ones are halves."""
    import soundfile
    from PIL import Image

    place.parent.mkdir(parents=True, exist_ok=True)
    if place.stem == "page":
        place.write_text("this is no picture\n")
        return
    match place.suffix:
        case ".png":
            noise = torch.randint(
                0, 256, (48, 64, 3), generator=torch.Generator().manual_seed(int.from_bytes(place.stem.encode()))
            )
            Image.fromarray(noise.byte().numpy()).save(place)
        case ".wav":
            soundfile.write(place, torch.sin(torch.arange(16_000) / 20).numpy() / 4, 16_000, subtype="PCM_16")
        case _:
            place.write_bytes(numbered_clip(20))
    if place.stem == "cut":
        place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files and rows of the page, and a tiny model for each that it names."""
    folder = tmp_path_factory.mktemp("walk")
    for name in FILES:
        make(folder / "pets" / name)
    for _, title, text in BLOCKS:
        if title and "mistake" not in title:
            (folder / title).write_text(text)
    for name, made in TINY.items():
        made(folder / "models" / name.replace("/", "-"))
    return folder


@pytest.fixture(autouse=True)
def _at_home(there: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the page's folder, where an id on the hub is one of its tiny models."""
    load = modalign.loading.load

    def place(path: str) -> str:
        return str(there / "models" / path.replace("/", "-")) if path in TINY else path

    def local(model: str | Path | ModelConfig, **settings: object) -> Model:
        config = configure(model, **settings)
        encoders = {name: one.model_copy(update={"path": place(one.path)}) for name, one in config.encoders.items()}
        return load(config.model_copy(update={"path": place(config.path), "encoders": encoders}))

    for module in (modalign, modalign.loading, modalign.training.job):
        monkeypatch.setattr(module, "load", local, raising=False)
    monkeypatch.chdir(there)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(line: str) -> object:
    return app(shlex.split(line)[1:], exit_on_error=False, print_error=False, result_action="return_value")


# --- the walk ------------------------------------------------------------------------------------------------------


def test_the_page_can_be_followed_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    for language, _, text in BLOCKS:
        if language == "bash":
            for line in text.splitlines():
                assert run(line) in (0, None), line
                done.append(line)
        elif language == "python":
            space: dict[str, object] = {}
            exec(compile(text, "docs/media.md", "exec"), space)
            done.append("python")
    assert {line.split()[1] for line in done if line.startswith("modalign")} == {
        "data",
        "train",
        "evaluate",
        "generate",
    }
    assert "python" in done
    said = capsys.readouterr().out
    assert "every row can be used" in said
    assert "3 rows and 3 media in pets.parquet" in said
    rows = read_metrics(Path("runs/pets/metrics.jsonl"))
    assert all(row["encoder/image/passes"] == row["encoder/image/media"] == 1 for row in rows if "loss" in row)
    # the second of two epochs finds all it needs in the feature cache
    cached = [
        row["encoder/image/passes"] for row in read_metrics(Path("runs/connector/metrics.jsonl")) if "loss" in row
    ]
    assert cached == [1, 1, 1, 0, 0, 0]


def test_the_table_of_what_trains_is_right(there: Path) -> None:
    rows = re.findall(r"^\| (left out[^|]*|`\[.*?\]`) \| (.*?) \|$", PAGE, re.M)
    assert len(rows) == 5
    for setting, trains in rows:
        settings: dict[str, object] = {"adapter": {"r": 2}} if "adapter" in setting else {}
        if setting.startswith("`"):
            settings["freeze"] = tuple(re.findall(r"\w+", setting))
        # a native checkpoint whose connector is a part of its own, and a composed model
        native = modalign.load(tiny_multimodal(there / "models/llava", "llava"), **settings)
        composed = modalign.load(
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            encoders={"image": {"path": "openai/clip-vit-base-patch32"}},
            **settings,
        )
        found = (moving(native), moving(composed))
        match trains.split(",")[0]:
            case "everything but the towers":
                assert found == ({"connectors", "backbone", "decoders"},) * 2
            case "the adapters":
                assert found == ({"backbone"}, {"backbone", "connectors"})
            case "connectors alone":
                assert found == ({"connectors"},) * 2
            case "towers alone":
                assert found == ({"encoders"},) * 2
            case "everything":
                assert found == ({"encoders", "connectors", "backbone", "decoders"},) * 2
            case _:
                pytest.fail(f"nobody knows what trains where {trains!r}")


def moving(model: Model) -> set[str]:
    """The kinds of part of which anything trains."""
    from modalign.freezing import parts

    kinds = ("encoders", "connectors", "backbone", "decoders")
    return {
        kind
        for kind, modules in parts(model).items()
        if kind in kinds and any(value.requires_grad for module in modules for value in module.parameters())
    }


@pytest.mark.parametrize("title", [title for _, title, _ in BLOCKS if title.endswith(".jsonl") and "mis" not in title])
def test_the_rows_of_the_page_can_be_used(title: str) -> None:
    assert run(f"modalign data check {title}") == 0


# --- mistakes ------------------------------------------------------------------------------------------------------


def words(text: str) -> str:
    return " ".join(text.split())


def test_there_are_mistakes() -> None:
    assert len(MISTAKES) == PAGE.count('pets/mistake.jsonl"\n') >= 12


@pytest.mark.parametrize(("row", "said"), MISTAKES, ids=[words(said).split(": ")[1][:50] for _, said in MISTAKES])
def test_a_mistake_says_what_the_page_says(row: str, said: str, there: Path) -> None:
    Path("pets/mistake.jsonl").write_text(row)
    json.loads(row)
    preparer = modalign.load("Qwen/Qwen2.5-VL-3B-Instruct").assembly.preparer
    with pytest.raises(DataError) as found:
        prepare(read("pets/mistake.jsonl"), preparer, DPO().needs)
    # after the count of bad rows stands each with its reason
    lines = [line.strip() for line in str(found.value).splitlines()]
    assert words(said) in lines


@pytest.mark.parametrize("cut", ["the picture is broken", "Generation takes no audio", "spells the special token"])
def test_what_only_a_model_finds_passes_the_check_without_one(cut: str) -> None:
    ((row, _),) = [(row, said) for row, said in MISTAKES if cut in words(said)]
    Path("pets/mistake.jsonl").write_text(row)
    assert run("modalign data check pets/mistake.jsonl") == 0
    assert run("modalign data check pets/mistake.jsonl --model Qwen/Qwen2.5-VL-3B-Instruct") == DataError.exit_code


# --- facts ---------------------------------------------------------------------------------------------------------


def test_the_settings_of_the_page_are_those_there_are() -> None:
    from modalign.registry import registry

    section = PAGE[PAGE.index("## 7.") : PAGE.index("## 8.")]
    kinds = {"pictures": "image", "sounds": "audio", "clips": "video"}
    for of, cell in re.findall(
        r"^\| (pictures|sounds|clips|sounds, clips|pictures, clips|all) \| (.*?)[:|] ?", section, re.M
    ):
        names = kinds if of == "all" else of.split(", ")
        for setting in re.findall(r"`(\w+)`", cell):
            for name in names:
                assert setting in registry.modality(kinds[name]).settings.model_fields


def test_the_families_of_the_page_are_those_that_were_tried() -> None:
    from modalign_text.multimodal.testing import MULTIMODAL

    spelt = {
        "llava": "LLaVA",
        "gemma3": "Gemma 3",
        "smolvlm": "SmolVLM",
        "qwen2_5_vl": "Qwen2.5-VL",
        "qwen2_audio": "Qwen2-Audio",
        "qwen2_5_omni_thinker": "Qwen2.5-Omni",
        "qwen3_omni_moe_thinker": "Qwen3-Omni",
    }
    assert spelt.keys() == MULTIMODAL.keys()
    assert all(name in words(PAGE) for name in spelt.values())
