"""`modalign generate` and `modalign sample` with a model that makes pictures: files that rows name and readers read."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import copytree
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from modalign.cli import main
from modalign.content import RAW, Message, Part, Response
from modalign.data import read
from modalign.files import File
from modalign.hookspecs import Register, hookimpl
from modalign.loading import load
from modalign.registry import registry
from modalign.roles import Reward
from modalign.testing import toy_model
from modalign.training.storage.metricslog import read_metrics
from modalign_image.config import ImageSettings

Cli = Callable[..., tuple[int, str, str]]

QUICK = ("--num_inference_steps", "2")
ASKED = "Show me this: count two, colour red."


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that nobody taught."""
    folder = registry.depiction("image").student(tmp_path_factory.mktemp("painter") / "m")
    assert folder is not None
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, painter: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own with the model `m`, to stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")  # what the command line sets goes with the test
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    copytree(painter, "m")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line here; gives exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


class Brightness(Reward):
    """The mean of a picture's pixels."""

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[float]:
        return [pixels(next(one.parts())).double().mean().item() for one in responses]


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reward `brightness`, registered."""
    module = ModuleType("modalign_rewards_for_tests")
    module.Brightness = Brightness  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def register_rewards(register: Register) -> None:
        register("brightness", f"{module.__name__}:Brightness")

    with registry.scoped(SimpleNamespace(register_rewards=hookimpl(register_rewards))):
        yield


def pixels(part: Part) -> Tensor:
    return registry.modality("image").decode(part, ImageSettings()).tensor


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def files(folder: str) -> list[str]:
    return sorted(one.name for one in Path(folder).iterdir())


# --- generate -----------------------------------------------------------------------------------------------------


def test_the_rows_that_are_written_name_pictures_that_read_back(cli: Cli) -> None:
    code, out, err = cli(
        "generate", "--model", "m", "--prompt", ASKED, "--prompt", "x", "--output", "out.jsonl", *QUICK
    )
    assert (code, out) == (0, f"2 responses in out.jsonl; 2 media in {Path('out_media')}\n"), err
    assert files("out_media") == ["00001.png", "00002.png"]
    assert rows("out.jsonl")[0] == {
        "prompt": [{"role": "user", "content": ASKED}],
        "completion": [{"role": "assistant", "content": [{"type": "image", "image": "out_media/00001.png"}]}],
    }
    assert cli("data", "check", "out.jsonl")[0] == 0
    made = load("m").generate([one.prompt for one in read("out.jsonl")], num_inference_steps=2)
    for one, response in zip(read("out.jsonl"), made, strict=True):
        (found,), (meant,) = one.responses[0].parts(), response.parts()
        assert isinstance(found.value, File)
        assert torch.equal(pixels(found), pixels(meant))


def test_the_folder_may_be_moved_with_its_rows(cli: Cli) -> None:
    Path("here").mkdir()
    assert cli("generate", "--model", "m", "--prompt", "x", "--output", "here/out.jsonl", *QUICK)[0] == 0
    before = pixels(next(read("here/out.jsonl")[0].responses[0].parts()))
    Path("here").rename("there")
    assert torch.equal(pixels(next(read("there/out.jsonl")[0].responses[0].parts())), before)


def test_without_an_output_the_paths_are_printed_and_nothing_is_overwritten(cli: Cli) -> None:
    code, out, _ = cli("generate", "--model", "m", "--prompt", "x", *QUICK)
    assert (code, out) == (0, f"[user] x\n-> [assistant] {Path('generated/00001.png')}\n\n")
    first = Path("generated/00001.png").read_bytes()
    assert (
        str(Path("generated/00002.png")) in cli("generate", "--model", "m", "--prompt", "x", "--seed", "1", *QUICK)[1]
    )
    assert Path("generated/00001.png").read_bytes() == first
    assert Path("generated/00002.png").read_bytes() != first
    out = cli("generate", "--model", "m", "--prompt", "x", "--media_dir", "my/own", *QUICK)[1]
    assert out.endswith(f"{Path('my/own/00001.png')}\n\n")
    assert Path("my/own/00001.png").read_bytes() == first


def test_the_settings_of_a_sampler_change_what_is_made(cli: Cli) -> None:
    model = load("m")  # whose network gives nothing yet
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    model.save("loud")
    pictures: set[bytes] = set()
    for number, words in enumerate((QUICK, ("--num_inference_steps", "5"), (*QUICK, "--guidance_scale", "3"))):
        assert cli("generate", "--model", "loud", "--prompt", ASKED, "--media_dir", str(number), *words)[0] == 0
        pictures.add(Path(str(number), "00001.png").read_bytes())
    assert len(pictures) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--num_inference_steps", "0"), "num_inference_steps"),
        (("--guidance_scale", "-1"), "guidance_scale"),
        (("--output", "out.jsonl"), "media go into a new or an empty folder beside the output file"),
        (("--output", "full.jsonl"), "the output file is there already"),
        (("--output", "none/out.jsonl"), "the output file's folder is not there"),
        (("--output", "new.jsonl", "--media_dir", "x"), "media of an output file lie beside it"),
        (("--output", "file.jsonl"), "media are written into a folder"),
        (("--output", "a\\b.jsonl"), "not a backslash"),
        (("--media_dir", "full.jsonl"), "media are written into a folder"),
        (("--data", "oracle"), "found: --prompt and --data"),
    ],
)
def test_generate_refuses_before_it_makes_anything(cli: Cli, words: tuple[str, ...], said: str) -> None:
    for name in ("out_media/mine", "full.jsonl", "file_media"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine")
    code, out, err = cli("generate", "--model", "m", "--prompt", "x", *words)
    assert (code in (2, 3), out) == (True, ""), err
    assert said in err
    assert err.count("\n") == 1
    assert Path("full.jsonl").read_text() == Path("out_media/mine").read_text() == "mine"


def test_media_that_prompts_bring_along_are_named_or_copied(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model()

    def in_words(
        model: object, asked: Sequence[Sequence[Message]], config: object, progress: object = None
    ) -> list[Response]:
        """As language models answer: a plain prompt is continued, a conversation gets a message."""
        roles = [RAW if one[0].role == RAW else "assistant" for one in asked]
        part = Part(modality="text", value="a")
        return [Response(messages=(Message(role=role, parts=(part,)),)) for role in roles]

    monkeypatch.setattr(model.assembly, "generate", in_words)
    monkeypatch.setattr("modalign.loading.load", lambda *path, **settings: model)
    assert cli("generate", "--model", "m", "--data", "oracle", "--split", "about/image/prompts", "--limit", "1")[0] == 0
    assert not Path("generated").exists()  # words need no folder
    asked = ("--split", "about/image/prompts", "--limit", "2")
    code, out, err = cli("generate", "--model", "m", "--data", "oracle", *asked, "--output", "out.jsonl")
    assert (code, out) == (0, f"2 responses in out.jsonl; 2 media in {Path('out_media')}\n"), err
    assert files("out_media") == ["00001-prompt.png", "00002-prompt.png"]
    assert cli("data", "check", "out.jsonl")[0] == 0

    # what lies below the new rows' folder is named where it is
    assert cli("generate", "--model", "m", "--data", "out.jsonl", "--output", "again.jsonl")[0] == 0
    assert "out_media/00001-prompt.png" in Path("again.jsonl").read_text()
    assert not Path("again_media").exists()

    # what lies elsewhere is copied, once
    Path("far").mkdir()
    Path("twice.jsonl").write_text(f"{Path('out.jsonl').read_text().splitlines()[0]}\n" * 2)
    assert cli("generate", "--model", "m", "--data", "twice.jsonl", "--output", "far/out.jsonl")[0] == 0
    assert files("far/out_media") == ["00001-prompt.png"]
    assert [one.prompt for one in read("far/out.jsonl")] == [one.prompt for one in read("twice.jsonl")]

    # beside a prompt that is plain words they have a column of their own
    row = {"prompt": "What is it? ", "images": ["out_media/00001-prompt.png"]}
    Path("plain.jsonl").write_text(f"{json.dumps(row)}\n")
    assert cli("generate", "--model", "m", "--data", "plain.jsonl", "--output", "far/plain.jsonl")[0] == 0
    assert rows("far/plain.jsonl")[0]["images"] == ["plain_media/00001-prompt.png"]
    assert read("far/plain.jsonl")[0].prompt == read("plain.jsonl")[0].prompt


@pytest.mark.usefixtures("brightness")
def test_prompts_of_plain_words_are_answered_in_rows_that_read_back(cli: Cli) -> None:
    Path("prompts.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": "a dog"}\n')
    assert cli("generate", "--model", "m", "--data", "prompts.jsonl", "--output", "out.jsonl", *QUICK)[0] == 0
    assert cli("data", "check", "out.jsonl")[0] == 0
    words = ("--data", "prompts.jsonl", "--reward", "brightness", "--output", "pairs.jsonl")
    assert cli("sample", "--model", "m", *words, *QUICK)[0] == 0
    assert cli("data", "check", "pairs.jsonl")[0] == 0
    assert [one["id"] for one in rows("pairs.jsonl")] == ["prompts.jsonl:1", "prompts.jsonl:2"]
    assert rows("pairs.jsonl")[0]["prompt"] == [{"role": "user", "content": "a cat"}]


# --- sample -------------------------------------------------------------------------------------------------------

ORACLE = ("--data", "oracle", "--split", "image/prompts", "--limit", "3")


def test_what_nobody_can_read_gives_no_pair_and_the_error_says_so(cli: Cli) -> None:
    code, out, err = cli("sample", "--model", "m", *ORACLE, "--reward", "oracle", "--output", "pairs.jsonl", *QUICK)
    assert (code, out) == (3, "")
    assert err.splitlines()[-1].startswith("modalign: data: no prompt gave a pair, so nothing is written; found: 3 ")
    assert "every response has the same reward: 3; rewards: all 0, as the oracle can read none of them" in err
    assert not Path("pairs.jsonl").exists()
    assert not Path("pairs_media").exists()


def test_what_the_oracle_does_not_judge_is_said_too(cli: Cli) -> None:
    err = cli("sample", "--model", "m", "--prompt", "x", "--reward", "oracle", "--output", "p.jsonl", *QUICK)[2]
    assert "fewer than two responses say something that has a reward: 1" in err
    assert "to mend: ask what the oracle can judge" in err


@pytest.mark.usefixtures("brightness")
def test_pairs_are_written_that_check_clean_and_train(cli: Cli) -> None:
    words = ("sample", "--model", "m", *ORACLE, "--reward", "brightness", "--count", "3", *QUICK)
    code, out, err = cli(*words, "--output", "pairs.jsonl")
    assert code == 0, err
    assert out.startswith(f"3 pairs of 3 prompts in pairs.jsonl; 6 media in {Path('pairs_media')}\nmean reward ")
    assert files("pairs_media") == [f"0000{n}-{side}.png" for n in (1, 2, 3) for side in ("chosen", "rejected")]
    for number, (pair, row) in enumerate(zip(read("pairs.jsonl"), rows("pairs.jsonl"), strict=True)):
        assert pair.kind == "pair"
        assert pair.id == row["id"] == read("oracle", split="image/prompts", limit=3)[number].id
        best, worst = Brightness()([pair.prompt] * 2, pair.responses)
        assert best > worst
        assert (pair.chosen.reward, pair.rejected.reward) == (best, worst)
        assert pair.margin == best - worst
    assert cli("data", "check", "pairs.jsonl")[0] == 0

    flags = ("--max_steps", "1", "--per_device_train_batch_size", "3", "--output_dir", "run")
    code, out, err = cli("train", "dpo", "--model", "m", "--data", "pairs.jsonl", *flags)
    assert code == 0, err
    (metrics,) = [one for one in read_metrics(Path("run/metrics.jsonl")) if "loss" in one]
    assert metrics["loss"] == pytest.approx(0.6931, abs=1e-4)  # -log sigmoid(0) = log 2: policy and reference agree


@pytest.mark.usefixtures("brightness")
def test_equal_seeds_give_equal_files(cli: Cli) -> None:
    words = ("sample", "--model", "m", "--prompt", "x", "--reward", "brightness", *QUICK)
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert cli(*words, "--seed", seed, "--output", f"{name}.jsonl")[0] == 0
    a, b, c = (Path(f"{name}_media/00001-chosen.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert Path("a.jsonl").read_text() == Path("b.jsonl").read_text().replace("b_media", "a_media")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reward", "orcale"), "registered: oracle; and no folder of that name; to mend: did you mean 'oracle'?"),
        (("--reward", "oracle", "--reward_dimension", "truth"), "only a reward model has dimensions"),
        (("--reward", "m"), "this model has no reward head"),
        (("--reward", "oracle", "--count", "1"), "a pair is made of two responses"),
        (("--reward", "oracle", "--prompt", "x"), "found: --prompt and --data"),
        (("--reward", "oracle", "--output", "full.jsonl"), "the output file is there already"),
        (("--reward", "oracle", "--temperature", "-1"), "temperature"),
        ((), "--reward"),
    ],
)
def test_sample_refuses_before_it_makes_anything(cli: Cli, words: tuple[str, ...], said: str) -> None:
    Path("full.jsonl").write_text("mine")
    output = () if "--output" in words else ("--output", "pairs.jsonl")
    code, out, err = cli("sample", "--model", "m", *ORACLE, *words, *output)
    assert (code in (2, 4), out) == (True, ""), err
    assert said in err
    assert err.count("\n") == 1
    assert files(".") == ["full.jsonl", "m"]
