"""docs/objectives.md says what each objective is, with the fields and defaults that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalign.objectives import (
    DPO,
    IPO,
    KTO,
    ORPO,
    SFT,
    BradleyTerry,
    Cost,
    DRaFT,
    Moderation,
    Objective,
    Ordinal,
    RaoKupper,
    ReFL,
    Regression,
    RewardWeighted,
    SimPO,
    Thurstone,
)

TEXT = (Path(__file__).parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")
NAMES: dict[str, type[Objective]] = {
    "sft": SFT,
    "dpo": DPO,
    "ipo": IPO,
    "kto": KTO,
    "simpo": SimPO,
    "orpo": ORPO,
    "reward_weighted": RewardWeighted,
    "draft": DRaFT,
    "refl": ReFL,
    "reward": BradleyTerry,
    "rao_kupper": RaoKupper,
    "thurstone": Thurstone,
    "regression": Regression,
    "ordinal": Ordinal,
    "moderation": Moderation,
    "cost": Cost,
}


@pytest.mark.parametrize(("name", "objective"), NAMES.items())
def test_fields_and_defaults_are_in_the_docs(name: str, objective: type[Objective]) -> None:
    section = TEXT.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    said = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    fields = {name: str(info.default).lower() for name, info in objective.model_fields.items()}
    assert {field.strip(" `"): default.strip() for field, default in said} == fields


@pytest.mark.parametrize(("name", "objective"), NAMES.items())
def test_needs_are_in_the_docs(name: str, objective: type[Objective]) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.replace("\\|", "").split("|")[1:-1]]
    needs = objective.needs
    assert cells[3] == ", ".join(needs.roles)
    units = (
        f"none: head `{needs.heads[0]}`"
        if not needs.units
        else "all"
        if len(needs.kinds) == 3
        else ", ".join(needs.kinds)
    )
    assert cells[5] == units
