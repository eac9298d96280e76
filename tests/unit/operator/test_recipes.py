"""The recipes are those of the published runs: the table of docs/recipes.md against what the operator writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_operator.api.choices import Recipe
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.training import Training
from rft_operator.domain.estimate_data import PUBLISHED
from rft_operator.domain.facts import Settings
from rft_operator.domain.recipes import DEFAULTS, END_OF_TURN, RECIPES, effective
from rft_operator.domain.resolve import RunSnapshot, resolve, training_config
from rft_trainer.contract import TrainingConfig
from rft_trainer.steps import total_steps
from support.objects import stored_run

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = {Recipe.SKY_T1: "sky-t1-32b.yaml", Recipe.S1: "s1-32b.yaml"}
ABSENT = "absent"
"""What an empty cell of the table stands for."""
COLUMNS = {Recipe.SKY_T1: 1, Recipe.S1: 3}


def published() -> list[list[str]]:
    """The rows of the table, by cell."""
    lines = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith(("| `run.", "| `deepspeed."))
    ]


def snapshot(example: Recipe, **spec: Any) -> RunSnapshot:
    """What the operator writes for a recipe's example."""
    raw = yaml.safe_load((ROOT / "examples" / EXAMPLES[example]).read_text(encoding="utf-8"))
    run = ReasoningFinetune.model_validate(stored_run(spec={**raw["spec"], **spec}))
    return resolve(run, Settings(trainer_image="trainer:test"))


def value_at(path: str, written: RunSnapshot) -> Any:
    place: Any = {"run": written.config.model_dump(mode="json"), "deepspeed": written.deepspeed}
    for name in path.split("."):
        place = place.get(name, ABSENT) if isinstance(place, Mapping) else ABSENT
    return place


@pytest.mark.parametrize("recipe", Recipe)
def test_recipe_has_every_published_value_when_the_example_is_resolved(recipe: Recipe) -> None:
    written, rows = snapshot(recipe), published()
    cells = {row[0].strip("`"): row[COLUMNS[recipe]].strip("`") for row in rows}
    assert {path: value_at(path, written) for path in cells} == {
        path: json.loads(cell) if cell else ABSENT for path, cell in cells.items()
    }


def test_table_names_every_value_of_a_training_and_a_source_for_each() -> None:
    paths = {row[0].strip("`") for row in published()}
    not_published = {"seed", "max_steps"}
    assert {f"run.training.{name}" for name in TrainingConfig.model_fields if name not in not_published} <= paths
    assert all(
        row[column + 1] or not row[column] or "gather_16bit" in row[0] for row in published() for column in (1, 3)
    )


@pytest.mark.parametrize("recipe", Recipe)
def test_recipe_names_every_value_so_that_a_new_default_changes_no_recipe(recipe: Recipe) -> None:
    assert RECIPES[recipe].model_fields_set == DEFAULTS.model_fields_set
    assert RECIPES[recipe].deepspeed.model_fields_set == DEFAULTS.deepspeed.model_fields_set


@pytest.mark.parametrize(("recipe", "steps", "warmup"), [(Recipe.SKY_T1, 513, 52), (Recipe.S1, 313, 16)])
def test_steps_are_those_of_the_published_run_but_for_the_filling_of_epochs(
    recipe: Recipe, steps: int, warmup: int
) -> None:
    rows = PUBLISHED[{Recipe.SKY_T1: "NovaSky-AI/Sky-T1_data_17k", Recipe.S1: "simplescaling/s1K"}[recipe]].rows
    training = training_config(effective(Training(), recipe))
    assert total_steps(training, sequences=rows) == steps
    assert -(-steps * int(1_000 * training.warmup_ratio) // 1_000) == warmup


def test_rows_end_as_the_user_says_before_the_recipe_and_as_the_template_says_without_both() -> None:
    dataset = {"uri": "hf://any/rows", "format": "messages"}
    assert {recipe: snapshot(recipe).config.dataset.eos for recipe in Recipe} == END_OF_TURN
    assert snapshot(Recipe.SKY_T1, dataset={**dataset, "eos": "im_end"}).config.dataset.eos == "im_end"
    assert snapshot(Recipe.SKY_T1, dataset=dataset, recipe=None).config.dataset.eos == "template"


def test_overlong_rows_are_dropped_unless_the_user_wants_the_run_refused() -> None:
    dataset = {"uri": "hf://any/rows", "format": "messages"}
    assert snapshot(Recipe.S1).config.dataset.overlong == "drop"
    assert snapshot(Recipe.S1, dataset={**dataset, "overlong": "fail"}).config.dataset.overlong == "fail"


def test_sizes_of_sky_t1_are_left_to_deepspeed_when_the_model_is_not_known() -> None:
    zero = snapshot(Recipe.SKY_T1, model={"uri": "pvc://models/own"}).deepspeed["zero_optimization"]
    assert "reduce_bucket_size" not in zero
    assert zero["stage"] == 3
