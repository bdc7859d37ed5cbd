"""What a kind of house usually sets, under what its own configuration file says.

Belongs here: which kinds there are, merging. Does not: what a key means (``sections``, ``operation``).
"""

import tomllib
from pathlib import Path
from typing import Any

from encoders.modalities import KINDS

FOLDER = Path(__file__).parent


def kinds() -> list[str]:
    """Kinds of houses, in order of name."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def with_preset(own: dict[str, Any]) -> dict[str, Any]:
    """A configuration as read from its file, over the preset that its ``domain`` names.

    Tables are merged key by key, everything else is the file's. ``promote_on`` of a preset is the metric of experiments
    that name none; its ``modalities`` are embedded by their default encoders where the file has no ``encoders``.

    Raises:
        ValueError: there is no preset of that name.
    """
    domain = own.get("domain")
    if domain is None:
        return own
    if domain not in kinds():
        raise ValueError(f"domain = {domain!r} is no kind of house; known are {', '.join(kinds())}")
    preset = tomllib.loads((FOLDER / f"{domain}.toml").read_text(encoding="utf-8"))
    metric, modalities = preset.pop("promote_on"), preset.pop("modalities")
    if "encoders" not in own:
        preset["encoders"] = {m: {"model": KINDS[m].default_encoder} for m in modalities}
    made = _merged(preset, own)
    experiments = made.get("experiments", {})
    if isinstance(experiments, dict):
        named = {n: {"metric": metric} | e if isinstance(e, dict) else e for n, e in experiments.items()}
        made = made | ({"experiments": named} if named else {})
    return made


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    found = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found
