"""From a pipeline's scheduler to the process it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor

from modalign.denoising import Process, check_prediction
from modalign.errors import ModelError


class Scheduler(Protocol):
    """What is asked of a scheduler of diffusers."""

    config: Mapping[str, object]


def process_of(scheduler: Scheduler) -> Process:
    """How a model was trained, as its scheduler says: a flow, or a table of alphas.

    A flow's shift moves training times too, unless it depends on the size of a picture.
    """
    said, name = scheduler.config, type(scheduler).__name__
    flows = name.startswith("FlowMatch") or bool(said.get("use_flow_sigmas"))
    if flows or said.get("prediction_type") == "flow_prediction":
        dynamic = bool(said.get("use_dynamic_shifting"))
        shift = 1.0 if dynamic else float(cast(float, said.get("shift") or said.get("flow_shift") or 1.0))
        return Process(prediction="flow", shift=shift, times="logit_normal")
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas, Tensor):
        raise ModelError(
            "this scheduler says nothing of how the model was trained",
            where="scheduler",
            got=name,
            fix="a family with such a scheduler states its own `process`",
        )
    prediction = check_prediction(str(said.get("prediction_type", "epsilon")), "scheduler.prediction_type")
    return Process(prediction=prediction, path="table", alphas=alphas.to(torch.float64))
