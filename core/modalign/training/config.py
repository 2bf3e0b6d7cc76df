"""Settings of a training run, under the names people know from transformers and TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, SerializeAsAny

from modalign.config import Config, DataConfig, ModelConfig
from modalign.draws import DrawConfig
from modalign.objectives.base import Objective


class TrainingConfig(Config):
    """How to train: everything but the model, the data and the objective."""

    output_dir: Path = Path("runs/run")
    """The run folder: resolved config, metrics, checkpoints, the final model, its card."""

    overwrite_output_dir: bool = False
    """Move an earlier run in the folder aside instead of refusing."""

    resume_from_checkpoint: Path | Literal["auto"] | None = None
    """A checkpoint folder, or `auto` for the newest valid one in the run folder (a fresh start if there is none)."""

    num_train_epochs: PositiveFloat = 1.0
    """Passes over the data, unless `max_steps` is given."""

    max_steps: PositiveInt | None = None
    """Optimizer steps; overrides `num_train_epochs`."""

    per_device_train_batch_size: PositiveInt = 1
    """Comparisons per device and micro-batch."""

    per_device_eval_batch_size: PositiveInt = 1
    """Comparisons per device and micro-batch in evaluation."""

    gradient_accumulation_steps: PositiveInt = 1
    """Micro-batches per optimizer step; the loss is a sum over the global count, whatever the split."""

    group_micro_batches: bool = False
    """Lay the samples of a step that are alike in modalities and length into the same micro-batches: the same step,
    with less that is filled up. For data of several modalities; with `gradient_accumulation_steps` above 1."""

    learning_rate: PositiveFloat = 1e-5
    """Peak learning rate of AdamW."""

    learning_rates: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Peak learning rates of single parts: of a kind (`connectors`), or of one by name (`decoders.NAME`), which goes
    before its kind. By default that of all."""

    head_learning_rate: PositiveFloat | None = None
    """Learning rate of reward heads, which start from nothing; by default the same."""

    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the schedule after the warm-up; the last two end at zero."""

    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from zero."""

    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay, of matrices only."""

    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of AdamW's mean."""

    adam_beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of AdamW's second moment."""

    adam_epsilon: PositiveFloat = 1e-8
    """Added to AdamW's denominator."""

    max_grad_norm: NonNegativeFloat = 1.0
    """Clip the global norm of the gradient to this; 0 does not clip."""

    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep an exponential moving average of the trained weights that decays by this per step, and evaluate and save it
    instead of the last ones: 0.999 or more for long runs of diffusion and flow."""

    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the forward pass."""

    disable_dropout: bool = True
    """Train without dropout, so that policy and reference differ by their weights only."""

    reference: Literal["auto", "adapters_off", "copy"] = "auto"
    """Reference scores come from the same model with its adapters off, or a frozen copy; `auto` prefers the first."""

    cache_reference: bool = False
    """Compute the reference's scores of each sample once. Its draws of noise are then the same in every epoch. For
    models whose decoders are diffusion or flow."""

    draws: DrawConfig = Field(default_factory=DrawConfig)
    """Noise and times of diffusion and flow decoders."""

    seed: NonNegativeInt = 0
    """Of the data's order, of draws, and of everything random."""

    dataloader_num_workers: NonNegativeInt = 0
    """Processes that prepare samples; the order does not depend on them."""

    logging_steps: PositiveInt = 1
    """Write metrics every so many steps, averaged over them."""

    eval_steps: PositiveInt | None = None
    """Evaluate every so many steps; at the end in any case, if there is evaluation data."""

    feature_cache: Path | None = None
    """A folder that keeps what frozen encoders give, by the medium's content, between epochs, runs and processes."""

    precompute_features: bool = False
    """Fill the feature cache with what frozen parts give of all data before the first step; then their weights leave
    memory. For models whose decoders are diffusion or flow."""

    save_steps: PositiveInt | None = None
    """Write a checkpoint every so many steps; at the end in any case."""

    save_total_limit: int = Field(default=2, ge=2)
    """Checkpoints to keep; the older one goes only when the newer is verified."""

    report_to: tuple[str, ...] = ()
    """Trackers beside the local metrics file: `trackio`, `tensorboard`, `wandb`."""

    run_name: str | None = None
    """Name of the run for trackers; by default the folder's."""

    merge_adapter: bool = False
    """Fold adapters into the final model and write it whole."""

    push_to_hub: bool = False
    """Upload the final model to the hub."""

    hub_model_id: str | None = None
    """Repository to upload to; by default the run's name under your account."""


class TrainConfig(TrainingConfig):
    """A whole training job: what `modalign train` reads and what a run folder stores."""

    model: ModelConfig
    """The policy."""

    data: DataConfig
    """What to train on."""

    eval_data: DataConfig | None = None
    """What to evaluate on."""

    objective: SerializeAsAny[Objective]
    """The loss."""
