"""What a run trained on last, as tokens: its tokenised examples, and how far the policy had each of them right."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from prefloop.errors import DataError
from prefloop.loop.journal import SUPERSEDED, Entry, Journal
from prefloop.policy import ChatCodec, resolve_model
from prefloop.training import Margin, TokensOnDisk, read_margins


@dataclass(frozen=True)
class TokensOfRun:
    """The last train step of a run."""

    path: str
    """Of the train step."""
    examples: TokensOnDisk
    margins: dict[str, Margin]
    """By example; empty where the step trained on other than pairs."""
    codec: ChatCodec


def tokens_of_run(run: Path) -> TokensOfRun:
    """The tokens that a run's last train step read.

    Raises:
        DataError: the folder is no run, or has trained nothing yet.
    """
    journal = Journal(run, read_only=True)
    entries = {entry.identity: entry for entry in journal.entries()}
    journal.close()
    trained = [entry for entry in entries.values() if _has_tokens(entry) and (run / entry.path).is_dir()]
    if not trained:
        raise DataError(f"{run}: no train step of it is done. Give its `prefloop run` command first.")
    last = max(trained, key=lambda entry: entry.path)
    assert last.made_from is not None
    folder = run / entries[last.made_from["inputs"]["tokens"][0]].path
    if not folder.is_dir():
        raise DataError(f"{folder}: is missing. Give the run's `prefloop run` command again: it makes what is missing.")
    margins = {one.example_id: one for one in read_margins(run / last.path)}
    return TokensOfRun(last.path, TokensOnDisk(folder), margins, codec_of_run(run))


def codec_of_run(run: Path) -> ChatCodec:
    """The tokenizer and the chat template of a run's model; no weight is loaded."""
    model = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["model"]
    return ChatCodec.load(resolve_model(model["path"]).directory, model.get("chat_template_kwargs", {}))


def _has_tokens(entry: Entry) -> bool:
    return not entry.path.startswith(f"{SUPERSEDED}/") and "tokens" in (entry.made_from or {"inputs": {}})["inputs"]
