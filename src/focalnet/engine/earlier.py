"""What run folders of earlier versions call otherwise: the one table of renamed options, facts and metrics."""

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, dict[str, str]] = {
    "task": {"test_augment": "tta"},
    "train": {"drop_at": "schedule_options.milestones"},
    "data": {"training pictures": "training samples", "validation pictures": "validation samples"},
    "row": {"images_per_second": "samples_per_second", "val_images_per_second": "val_samples_per_second"},
}
"""Part of `config.json`, or "row" of `metrics.jsonl` -> old name -> today's; a dot leads into the options of an option.
"""


def modern(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The `values` of a part in today's names. Old options that were not used are left out."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        outer, _, inner = RENAMED[part].get(name, name).partition(".")
        if outer == name:
            result[name] = value
        elif value is not False and value != []:
            result[outer] = {inner: value} if inner else value
    return result


def modern_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `config.json` in today's names."""
    return {name: modern(name, value) if name in RENAMED else value for name, value in config.items()}
