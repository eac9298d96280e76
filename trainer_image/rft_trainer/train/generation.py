"""What a server of the trained model has to know of how its rows were written: where a turn ends, the chat template.

Invariant: a server that goes by the exported files alone stops where training ended its rows, also when those ended
otherwise than the base model's turns; what the base model stops at still ends a turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rft_trainer.contract import EndOfTurn
from rft_trainer.files import read_json, write_atomic, write_json
from rft_trainer.prepare.chat import ChatRenderer
from rft_trainer.prepare.model import load_tokenizer

GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"


def write_generation_files(base: Path, destination: Path, *, eos: EndOfTurn) -> None:
    """Complete the base model's files in ``destination`` by what rows of ``eos`` need."""
    tokenizer = load_tokenizer(base)
    has_template = bool(tokenizer.chat_template)
    renderer = ChatRenderer(tokenizer, eos=eos)
    if not has_template:
        write_atomic(destination / TEMPLATE_FILE, str(tokenizer.chat_template))
    settings = _settings(base)
    trained = tokenizer(renderer.end_of_row.strip(), add_special_tokens=False)["input_ids"]
    stops = [*(trained if len(trained) == 1 else []), *_listed(settings.get("eos_token_id"))]
    if stops:
        write_json(destination / GENERATION_FILE, {**settings, "eos_token_id": list(dict.fromkeys(stops))})


def _settings(base: Path) -> dict[str, Any]:
    """The base model's settings for generation; older models have them in their configuration."""
    found = read_json(base / GENERATION_FILE)
    if isinstance(found, dict):
        return found
    config = read_json(base / "config.json") or {}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names if config.get(name) is not None}


def _listed(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
