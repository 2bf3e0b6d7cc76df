"""The table of bad input: each gives one clear error (what, where, got, mend), its exit code, and loses nothing."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from modalign.cli import main
from modalign.training.storage.runfolder import RunFolder
from modalign_text.testing import tiny_model, tiny_tokenizer

NEW = "runs/new"  #: the run that fails; everything else here must stay as it is
DPO = ("train", "dpo", "--model", "m", "--data", "pairs.jsonl", "--output_dir", NEW)
GOOD = {"prompt": "say red", "chosen": " red", "rejected": " not red"}
CONFIG = "model: {path: m}\ndata: {path: pairs.jsonl}\nobjective: dpo\noutput_dir: runs/new\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a user did wrong: the command, how its input came to be, and what must be said of it."""

    words: tuple[str, ...]
    code: int
    said: tuple[str, ...]
    make: Callable[[], object] = lambda: None
    during: Callable[[], AbstractContextManager[object]] = nullcontext


def file(name: str, content: str | bytes) -> Callable[[], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(name).write_bytes(data)


def rows(*bad: object) -> Callable[[], object]:
    """bad.jsonl: a good row, and behind it what is wrong."""
    lines = [json.dumps(GOOD), *(one if isinstance(one, str) else json.dumps(one) for one in bad)]
    return file("bad.jsonl", "".join(f"{line}\n" for line in lines))


def with_data(*more: str) -> tuple[str, ...]:
    return (*DPO, "--data", "bad.jsonl", *more)


def without_weights() -> None:
    copytree("m", "empty")
    Path("empty/model.safetensors").unlink()


def pickled_weights() -> None:
    without_weights()
    torch.save(load_file("m/model.safetensors"), "empty/pytorch_model.bin")


def renamed_pickle() -> None:
    without_weights()
    torch.save(load_file("m/model.safetensors"), "empty/model.safetensors")


def infinite() -> None:
    copytree("m", "inf")
    weights = load_file("m/model.safetensors")
    (tilde,) = tiny_tokenizer()("~")["input_ids"]  # seen by a row, not by what a loader tries
    weights["model.embed_tokens.weight"][tilde] = torch.inf
    save_file(weights, "inf/model.safetensors", metadata={"format": "pt"})
    rows({**GOOD, "chosen": " ~"})()


def without_template() -> None:
    copytree("m", "plain")
    Path("plain/chat_template.jinja").unlink()
    tiny_tokenizer(chat_template=None).save_pretrained("plain")
    turn = {"prompt": [{"role": "user", "content": "hi"}]}
    rows(turn | {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")})()
    Path("bad.jsonl").write_text("".join(Path("bad.jsonl").read_text().splitlines(keepends=True)[1:]))


def pickled_checkpoint() -> None:
    Path("checkpoint.pt").write_bytes(pickle.dumps({"step": 1}))


CASES = {
    "unknown key": Case(
        make=file("new.yaml", CONFIG + "learning_rat: 1\n"),
        words=("train", "new.yaml"),
        code=2,
        said=("config", "new.yaml:5", "unknown setting 'learning_rat'", "found: 1", "did you mean 'learning_rate'?"),
    ),
    "unknown flag": Case(
        words=(*DPO, "--learning_rat", "1"),
        code=2,
        said=("config", "unknown flag --learning_rat", "did you mean --learning_rate?"),
    ),
    "wrong type in a file": Case(
        make=file("new.yaml", CONFIG + "eval_steps: often\n"),
        words=("train", "new.yaml"),
        code=2,
        said=("new.yaml:5", "setting 'eval_steps'", "valid integer", "found: 'often'", "to mend"),
    ),
    "wrong type in a flag": Case(
        words=(*DPO, "--objective.beta", "much"),
        code=2,
        said=("setting 'objective.beta'", "valid number", "found: 'much'", "to mend"),
    ),
    "missing config": Case(
        words=("train", "none.yaml"), code=2, said=("none.yaml", "no such config file", "check the path")
    ),
    "missing data": Case(
        words=(*DPO, "--data", "none.jsonl"), code=3, said=("data", "none.jsonl", "no such file", "found", "to mend")
    ),
    "missing model": Case(
        words=(*DPO, "--model", "./none"), code=2, said=("model", "no model at ./none", "found", "check the path")
    ),
    "unknown objective": Case(
        words=("train", "dpoo", *DPO[2:]), code=4, said=("plugin", "no objective 'dpoo'", "registered: ", "'dpo'")
    ),
    "unreadable row": Case(
        make=rows('{"prompt": "a", "chosen'),
        words=with_data(),
        code=3,
        said=("data", "bad.jsonl:2", "JSON", "to mend"),
    ),
    "row of another shape": Case(
        make=rows({**GOOD, "chosen": 3}),
        words=with_data(),
        code=3,
        said=("bad.jsonl:2", "field=chosen", "found: a number 3"),
    ),
    "empty chosen": Case(
        make=rows({**GOOD, "chosen": ""}), words=with_data(), code=3, said=("bad.jsonl:2", "chosen", "empty", "to mend")
    ),
    "identical chosen and rejected": Case(
        make=rows({**GOOD, "rejected": GOOD["chosen"]}),
        words=with_data(),
        code=3,
        said=("bad.jsonl:2", "chosen", "rejected", "same", "to mend"),
    ),
    "over-long sample": Case(
        make=rows({**GOOD, "chosen": " red" * 20}),
        words=with_data("--data.max_length", "40"),
        code=3,
        said=("bad.jsonl:2", "40", "on_too_long"),
    ),
    "media column no plugin claims": Case(
        make=rows({**GOOD, "smells": ["a.scent"]}),
        words=with_data(),
        code=3,
        said=("bad.jsonl:2", "smells", "found", "to mend"),
    ),
    "conversations without a chat template": Case(
        make=without_template,
        words=with_data("--model", "plain"),
        code=3,
        said=("bad.jsonl:1", "no chat template", "model.chat_template"),
    ),
    "model without weights": Case(
        make=without_weights,
        words=(*DPO, "--model", "empty"),
        code=2,
        said=("model", "empty", "no weights", "found: ", "safetensors"),
    ),
    "pickled weights": Case(
        make=pickled_weights,
        words=(*DPO, "--model", "empty"),
        code=5,
        said=("checkpoint", "empty", "pickle", "pytorch_model.bin", "convert"),
    ),
    "pickle called safetensors": Case(
        make=renamed_pickle, words=(*DPO, "--model", "empty"), code=5, said=("empty", "no safetensors", "to mend")
    ),
    "pickle as model": Case(
        make=pickled_checkpoint,
        words=(*DPO, "--model", "checkpoint.pt"),
        code=2,
        said=("model", "checkpoint.pt", "pickle", "a .pt file", "convert"),
    ),
    "pickle as checkpoint": Case(
        make=pickled_checkpoint,
        words=(*DPO, "--resume_from_checkpoint", "checkpoint.pt"),
        code=5,
        said=("checkpoint", "checkpoint.pt", "pickle", "to mend"),
    ),
    "checkpoint that is not there": Case(
        words=(*DPO, "--resume_from_checkpoint", "runs/none/checkpoints/checkpoint-1"),
        code=5,
        said=("checkpoint-1", "no", "to mend"),
    ),
    "checkpoint of another run": Case(
        words=(*DPO, "--learning_rate", "0.5", "--resume_from_checkpoint", "runs/old/checkpoints/checkpoint-1"),
        code=5,
        said=("checkpoint", "learning_rate", "to mend"),
    ),
    "run folder in use": Case(
        words=(*DPO, "--output_dir", "runs/held"),
        during=lambda: RunFolder.open("runs/held"),
        code=6,
        said=("resource", "runs/held", "process", "to mend"),
    ),
    "run folder of an earlier run": Case(
        words=(*DPO, "--output_dir", "runs/old"),
        code=2,
        said=("runs/old", "earlier run", "metrics.jsonl", "resume_from_checkpoint=auto"),
    ),
    "output_dir that is a file": Case(
        words=(*DPO, "--output_dir", "pairs.jsonl"), code=2, said=("pairs.jsonl", "is a file", "name a folder")
    ),
    "resuming and overwriting": Case(
        words=(*DPO, "--output_dir", "runs/old", "--resume_from_checkpoint", "auto", "--overwrite_output_dir"),
        code=2,
        said=("resumed or written anew", "overwrite_output_dir and resume_from_checkpoint", "drop one"),
    ),
    "NaN in a loss": Case(
        make=infinite,
        words=with_data("--model", "inf", "--per_device_train_batch_size", "2"),
        code=7,
        said=("numeric", "bad.jsonl:2", "step 1 is not finite", "found: parameter backbone", "to mend"),
    ),
    "evaluating a whole model by itself": Case(
        words=("evaluate", "dpo", "--model", "m", "--data", "pairs.jsonl"),
        code=2,
        said=("model.path", "measured against", "found: m", "evaluate the run folder"),
    ),
    "evaluating without data": Case(
        words=("evaluate", "runs/old"), code=2, said=("setting 'data' is missing", "give --data")
    ),
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model, data and a finished run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("before")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        tiny_model("m")
        Path("pairs.jsonl").write_text(f"{json.dumps(GOOD)}\n")
        with pytest.raises(SystemExit) as ended:
            main([*DPO, "--output_dir", "runs/old"])
        assert ended.value.code == 0
        yield place
    torch.set_num_threads(threads)


def digests() -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path().rglob("*")
        if path.is_file() and path.name != "run.lock" and not path.is_relative_to(NEW)
    }


@pytest.mark.parametrize("case", CASES.values(), ids=[name.replace(" ", "-") for name in CASES])
def test_bad_input_gives_one_clear_error_and_loses_nothing(
    case: Case, before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(before, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    case.make()
    with case.during():
        kept = digests()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(case.words)
        out, err = capsys.readouterr()
        assert digests() == kept
    assert ended.value.code == case.code, err
    assert out == ""
    message = err[err.index("modalign: ") :]
    assert err.count("modalign: ") == 1
    assert "Traceback" not in err
    assert not [word for word in case.said if word not in message], message
    assert not Path(NEW, "final").exists()


def test_what_a_failed_run_found_is_kept_when_its_folder_is_used_again(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree(before, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    infinite()
    for model, more, code in (("inf", (), 7), ("m", (), 2), ("m", ("--overwrite_output_dir",), 0)):
        with pytest.raises(SystemExit) as ended:
            main([*with_data("--model", model, *more)])
        assert ended.value.code == code
    assert [path.parent.name for path in Path("runs").glob("*/nonfinite-step-1.json")] == ["new.old-1"]
    assert Path(NEW, "final").is_dir()
