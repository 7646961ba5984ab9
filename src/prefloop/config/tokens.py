"""A train step, with the step before it that makes its examples tokens."""

from typing import Any

from prefloop.config.base import is_mapping
from prefloop.config.steps import TokenSettings

SUFFIX = "-tokens"


def expand_training(raw: dict[str, Any]) -> dict[str, Any]:
    """The recipe with each train step preceded by `NAME-tokens`, which has what decides about its tokens.

    So tokens are kept apart from what is learnt of them: another learning rate tokenises nothing again.
    """
    full = dict(raw)
    for group in ("setup", "block", "round"):
        listed: list[str] = []
        for name in raw.get(group) or ():
            settings = raw[name]
            if is_mapping(settings) and settings.get("type") == "train":
                own = {key: settings[key] for key in TokenSettings.model_fields if key in settings}
                full[name + SUFFIX] = {"type": "tokens", **own}
                listed.append(name + SUFFIX)
            listed.append(name)
        if listed:
            full[group] = listed
    return full
