"""Settings from files and flags: what is read, what is refused, where a mistake is said to be, what comes back."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from modalign.cli.flags import flags_of, parse_flags
from modalign.cli.settings import read_yaml
from modalign.cli.train import configure, job_of
from modalign.config import AdapterConfig, DataConfig, ModelConfig
from modalign.errors import ConfigError
from modalign.registry import registry
from modalign.training.card import resolved
from modalign.training.config import TrainConfig
from modalign.training.storage.runinfo import yaml_bytes

LEAST = "model: {path: m}\ndata: {path: d}\nobjective: dpo\n"  # three lines: what is added is line 4
OBJECTIVES = ("sft", "dpo", "ipo", "kto", "simpo", "orpo", "reward")


def configured(folder: Path, text: str, *flags: str) -> TrainConfig:
    path = folder / "config.yaml"
    path.write_text(text)
    config = configure(str(path), flags)
    assert config is not None
    return config


def refused(folder: Path, text: str, *flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(folder, text, *flags)
    return str(caught.value).replace(str(folder), "")


# --- YAML ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "name", "meant"),
    [
        ("learning_rate: 1e-5", "learning_rate", 1e-5),  # YAML 1.1 reads a string
        ("learning_rate: 2.0E-5", "learning_rate", 2e-5),
        ("mixed_precision: no", "mixed_precision", "no"),  # YAML 1.1 reads False
        ("run_name: on", "run_name", "on"),
        ("run_name: '3'", "run_name", "3"),
        ("run_name: none", "run_name", "none"),
        ("run_name: null", "run_name", None),
        ("seed: 0o17", "seed", 15),
        ("report_to: [trackio]", "report_to", ("trackio",)),
        ("output_dir: ~", "output_dir", None),
    ],
)
def test_a_value_means_what_yaml_1_2_says(tmp_path: Path, written: str, name: str, meant: object) -> None:
    if name == "output_dir":  # null where there must be something
        assert "setting 'output_dir'" in refused(tmp_path, f"{LEAST}{written}\n")
    else:
        assert getattr(configured(tmp_path, f"{LEAST}{written}\n"), name) == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{LEAST}seed: 1\nseed: 2\n", ["/config.yaml:5", "duplicate key", "seed"]),
        (f"{LEAST}seed: &x 3\nmax_steps: *x\n", ["/config.yaml:4", "anchor"]),
        (f"{LEAST}seed: !!int 3\n", ["/config.yaml:4", "tag"]),
        ("%YAML 1.1\n---\n" + LEAST, ["/config.yaml:1", "directive"]),
        ("x: " + "[" * 5000 + "]" * 5000, ["/config.yaml:1", "nested too deeply", "at most 64"]),
        (f"{LEAST}run_name: {'x' * (1 << 20)}\n", ["too large", "1 MB"]),
        (f"{LEAST}run_name: 2026-99-99\n", ["not valid YAML", "month"]),
        (f"{LEAST}seed: [1\n", ["/config.yaml:", "not valid YAML"]),
        ("- seed\n", ["mapping of settings", "Seq"]),
        ("", ["mapping of settings", "an empty file"]),
    ],
    ids=["duplicate", "anchor", "tag", "directive", "depth", "size", "date", "bracket", "list", "empty"],
)
def test_a_file_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    said = refused(tmp_path, text)
    assert all(word in said for word in words), said


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe" + LEAST.encode())
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(tmp_path / "config.yaml")


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{LEAST}learning_rat: 1\n", [":4: unknown setting 'learning_rat'", "did you mean 'learning_rate'?"]),
        (f"{LEAST}beta: 0.2\n", [":4: unknown setting 'beta'", "did you mean 'objective.beta'?"]),
        (f"{LEAST}eval_steps: often\n", [":4: setting 'eval_steps'", "integer", "found: 'often'", "Evaluate every"]),
        (f"{LEAST}report_to: trackio\n", [":4: setting 'report_to'", "list", "found: 'trackio'"]),
        (f"{LEAST}resume_from_checkpoint: 3\n", [":4: setting 'resume_from_checkpoint'", "found: 3"]),
        (f"{LEAST}3: x\n", [":4: unknown setting '3'"]),
        ("model: m\ndata: {path: d}\nobjective: dpo\n", [":1: setting 'model'", "mapping", "found: 'm'"]),
        ("model:\n  path: m\n  adapter:\n    rank: 4\nobjective: dpo\n", [":4: unknown setting 'model.adapter.rank'"]),
        ("objective:\n  name: dpo\n  betta: 3\n", [":3: unknown setting 'objective.betta'", "'objective.beta'?"]),
        ("data: {path: d}\nobjective: dpo\n", ["setting 'model' is missing", "--model"]),
        ("seed: 1\nobjectiv: dpo\n", ["names its objective", "a setting 'objectiv'", "objective: {name: dpo}"]),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, words: list[str]) -> None:
    said = refused(tmp_path, text)
    assert all(word in said for word in words), said


def test_all_mistakes_of_a_file_are_named_each_with_its_line(tmp_path: Path) -> None:
    first, second = refused(tmp_path, f"{LEAST}max_steps: 2.5\nlearning_rat: 1\n").splitlines()
    assert "config.yaml:4" in first
    assert "max_steps" in first
    assert "config.yaml:5" in second
    assert "learning_rate" in second


def paths(values: Mapping[str, object], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


def whole(name: str) -> TrainConfig:
    """A config in which nothing is left out."""
    return job_of(name)(
        model=ModelConfig(path="m", adapter=AdapterConfig(target_modules=("q_proj", "v_proj"))),
        data=DataConfig(path="d", on_too_long="skip", max_length=64),
        eval_data=DataConfig(path="e", limit=3),
        objective=registry.objective(name)(),
        report_to=("trackio", "tensorboard"),
        resume_from_checkpoint="auto",
        run_name="123",
        eval_steps=5,
    )


def test_every_single_typo_of_a_key_is_caught(tmp_path: Path) -> None:
    config = whole("dpo")
    values = resolved(config, config.objective)
    keys = list(paths(values))
    assert len(keys) > 60
    for path in keys:
        last = path[-1]
        wrong = f"{last}x"
        changed = _renamed(values, path, wrong)
        text = yaml_bytes(changed).decode()
        said = refused(tmp_path, text)
        assert wrong in said, (path, said)
        if last not in ("name", "objective"):
            assert f"did you mean '{'.'.join(path)}'?" in said, said
            line = next(number for number, row in enumerate(text.splitlines(), 1) if f"{wrong}:" in row)
            assert f":{line}: unknown setting" in said


def _renamed(values: Mapping[str, object], path: tuple[str, ...], name: str) -> dict[str, object]:
    first, *rest = path
    found: dict[str, object] = {}
    for key, value in values.items():
        if key != first:
            found[key] = value
        elif rest:
            assert isinstance(value, dict)
            found[key] = _renamed(value, tuple(rest), name)
        else:
            found[name] = value
    return found


# --- the resolved config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_resolved_config_reads_back_as_itself(tmp_path: Path, name: str) -> None:
    config = whole(name)
    (tmp_path / "config.yaml").write_bytes(yaml_bytes(resolved(config, config.objective)))
    assert configure(str(tmp_path / "config.yaml")) == config


def test_settings_that_a_flag_could_not_say_read_back_too(tmp_path: Path) -> None:
    options: dict[str, object] = {"a": 1, "b": [1, 2.5], "c": {"d": True, "e": None}, "f": "1"}
    config = job_of("dpo")(
        model=ModelConfig(path="m", options=options, adapter=AdapterConfig()),
        data=DataConfig(path="null"),
        objective=registry.objective("dpo")(),
        run_name="true",
        max_grad_norm=float("inf"),
    )
    (tmp_path / "config.yaml").write_bytes(yaml_bytes(resolved(config, config.objective)))
    assert configure(str(tmp_path / "config.yaml")) == config


def test_an_empty_mapping_turns_on_what_has_defaults(tmp_path: Path) -> None:
    config = configured(tmp_path, "model: {path: m, adapter: {}}\ndata: {path: d}\nobjective: dpo\n")
    assert config.model.adapter == AdapterConfig()


# --- flags ---------------------------------------------------------------------------------------------------------


def test_flags_go_over_a_file_key_by_key(tmp_path: Path) -> None:
    text = f"{LEAST}seed: 4\nreport_to: [trackio, wandb]\n".replace("{path: m}", "{path: m, adapter: {r: 4, alpha: 8}}")
    config = configured(tmp_path, text, "--model.adapter.r", "2", "--report-to", "tensorboard", "--objective.beta=0.3")
    assert config.model.adapter == AdapterConfig(r=2, alpha=8)
    assert (config.seed, config.report_to) == (4, ("tensorboard",))
    assert config.objective.model_dump()["beta"] == 0.3


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (["--model", "m", "--eval-data", "e"], {"model": {"path": "m"}, "eval_data": {"path": "e"}}),
        (["--per-device-train-batch-size", "2"], {"per_device_train_batch_size": "2"}),
        (["--learning_rate", "-1"], {"learning_rate": "-1"}),
        (["--no-disable_dropout", "--merge-adapter"], {"disable_dropout": False, "merge_adapter": True}),
        (["--disable_dropout", "false", "--merge_adapter=true"], {"disable_dropout": False, "merge_adapter": True}),
        (["--model.no_gradient_checkpointing"], {"model": {"gradient_checkpointing": False}}),
        (["--report_to", "a", "b", "--report_to=c", "--seed", "1"], {"report_to": ["a", "b", "c"], "seed": "1"}),
        (["--model.options.depth", "3"], {"model": {"options": {"depth": "3"}}}),
        (["--model.encoders.image", "t"], {"model": {"encoders": {"image": {"path": "t"}}}}),
        (
            ["--model.decoders.image.connector.queries", "8", "--model.decoders.image.no_train"],
            {"model": {"decoders": {"image": {"connector": {"queries": "8"}, "train": False}}}},
        ),
        (["--learning_rates.connectors", "1e-4"], {"learning_rates": {"connectors": "1e-4"}}),
        (["--seed", "1", "--seed", "2"], {"seed": "2"}),
    ],
)
def test_flags_are_read_as_people_write_them(tokens: list[str], found: dict[str, object]) -> None:
    assert parse_flags(job_of("dpo"), tokens) == found


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--learning_rat", "1"], "unknown flag --learning_rat; to mend: did you mean --learning_rate?"),
        (["--beta=0.2"], "unknown flag --beta; to mend: did you mean --objective.beta?"),
        (["--modle", "m"], "did you mean --model?"),
        (["--no-seed"], "unknown flag --no-seed"),
        (["--model.encoders.image.pth", "t"], "unknown flag --model.encoders.image.pth; to mend: did you mean --path?"),
        (["--seed"], "--seed needs a value"),
        (["--seed", "1", "2"], "belongs to no flag; found: '2'"),
        (["--"], "belongs to no flag"),
    ],
)
def test_a_flag_nobody_knows_is_refused(tokens: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_flags(job_of("dpo"), tokens)
    assert words in str(caught.value)


def test_every_setting_is_a_flag_and_what_is_no_value_is_refused_by_name() -> None:
    flags = {".".join(flag.keys): flag.kind for flag in flags_of(job_of("dpo"))}
    assert flags["model.adapter.target_modules"] == "list"
    assert flags["resume_from_checkpoint"] == "value"
    assert flags["model.options"] == "open"
    with pytest.raises(ConfigError, match=r"setting 'seed': .* found: 'x'"):
        configure("dpo", ["--model", "m", "--data", "d", "--seed", "x"])
    with pytest.raises(ConfigError, match=r"setting 'merge_adapter': .* found: 'perhaps'"):
        configure("dpo", ["--model", "m", "--data", "d", "--merge_adapter=perhaps"])
