"""The contract of plugins, and a model that learns from rows with these media."""

import math
from pathlib import Path

import modalign
from modalign.testing import check_plugin
from modalign_series.testing import probe
from modalign_text.testing import tiny_model


def row(numbers, chosen, rejected):
    prompt = [{"role": "user", "content": [{"type": "series", "series": numbers}, {"type": "text", "text": "Up?"}]}]
    say = lambda words: [{"role": "assistant", "content": words}]
    return {"prompt": prompt, "chosen": say(chosen), "rejected": say(rejected)}


def test_the_plugin_keeps_the_contract():
    assert len(check_plugin("series")) > 10


def test_preferences_about_series_are_learnt(tmp_path: Path):
    model = modalign.compose(tiny_model(tmp_path / "words"), encoders={"series": probe(tmp_path / "tower")})
    rows = [row([1, 2, 3, 4], "yes", "no"), row([4, 3, 2, 1], "no", "yes")]
    trainer = modalign.Trainer(
        model=model,
        objective=modalign.DPO(),
        data=rows,
        eval_data=rows,
        output_dir=tmp_path / "run",
        max_steps=30,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        quiet=True,
    )
    assert trainer.evaluate()["eval_loss"] == math.log(2)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.3
