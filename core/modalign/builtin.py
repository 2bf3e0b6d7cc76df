"""What core itself brings, by the same door as everyone."""

from __future__ import annotations

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_objectives(register: Register) -> None:
    """Preference and reward objectives."""
    register("sft", "modalign.objectives.sft:SFT")
    register("dpo", "modalign.objectives.dpo:DPO")
    register("ipo", "modalign.objectives.ipo:IPO")
    register("kto", "modalign.objectives.kto:KTO")
    register("simpo", "modalign.objectives.simpo:SimPO")
    register("orpo", "modalign.objectives.orpo:ORPO")
    register("reward_weighted", "modalign.objectives.reward_weighted:RewardWeighted")
    register("draft", "modalign.objectives.reward_gradient:DRaFT")
    register("refl", "modalign.objectives.reward_gradient:ReFL")
    register("reward", "modalign.objectives.reward:BradleyTerry")
    register("rao_kupper", "modalign.objectives.rao_kupper:RaoKupper")
    register("thurstone", "modalign.objectives.thurstone:Thurstone")
    register("regression", "modalign.objectives.regression:Regression")
    register("ordinal", "modalign.objectives.ordinal:Ordinal")
    register("moderation", "modalign.objectives.moderation:Moderation")
    register("cost", "modalign.objectives.cost:Cost")


@hookimpl
def register_connectors(register: Register) -> None:
    """Embeddings to the width of a backbone."""
    laws = "modalign.testing.connector_laws"
    register("linear", "modalign.connectors.linear:LinearConnector", probe=f"{laws}:linear")
    register("mlp", "modalign.connectors.mlp:MLPConnector", probe=f"{laws}:mlp")
    register("query", "modalign.connectors.query:QueryConnector", probe=f"{laws}:query")


@hookimpl
def register_heads(register: Register) -> None:
    """Reward heads."""
    register("linear", "modalign.heads.linear:LinearHead")
    register("gaussian", "modalign.heads.gaussian:GaussianHead")
    register("cosine", "modalign.heads.cosine:CosineHead")
    register("labels", "modalign.heads.labels:LabelHead")
    register("ordinal", "modalign.heads.ordinal:OrdinalHead")


@hookimpl
def register_ops(register: Register) -> None:
    """What draws are made of: noise and its targets, and squared errors."""
    for name in ("add_noise", "squared_error"):
        op = f"modalign.ops.{name}"
        register(name, f"{op}:{name}", reference=f"{op}:reference", probe=f"{op}:probe")


@hookimpl
def register_rewards(register: Register) -> None:
    """Judges that are not trained."""
    register("oracle", "modalign.world.reward:OracleReward")


@hookimpl
def register_checks(register: Register) -> None:
    """What `modalign doctor` tries wherever modalign runs."""
    register("python", "modalign.checks:Python")
    register("torch", "modalign.checks:Torch")
    register("accelerate", "modalign.checks:Accelerate")
    register("disk", "modalign.checks:Disk")
