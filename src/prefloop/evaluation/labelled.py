"""A judge against labels: pairs judged in both orders, and what its errors do to the pairs that are made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from prefloop.data import Reading, find_source
from prefloop.data.given import given_response
from prefloop.errors import DataError
from prefloop.evaluation.lines import Line, read_lines
from prefloop.judging import Ask, Judge, figures, judgments, totals
from prefloop.records import Judgment, Message, Prompt, Response
from prefloop.statistics import clustered_share, ordered_agreement

QA_PAIRS = tuple(combinations(range(4), 2))
"""Which answers each of qa_feedback's six votes is about."""


@dataclass(frozen=True)
class LabelledPair:
    """Two answers, and which of them is better."""

    prompt: Prompt
    first: Response
    second: Response
    gold: str
    """"1" or "2"."""
    subset: str


def labelled_pairs(path: Path, count: int | None = None, seed: int = 0) -> list[LabelledPair]:
    """The pairs of a labelled set that have a better answer; ties and pairs with one text are left out.

    Rows of LLMBar (`prompt, output_1, output_2, label`) and qa_feedback (`question, passages, responses, preference`),
    or any form of preference data that `prefloop lint` knows.

    Args:
        path: the file.
        count: pairs at most, drawn by the seed; None takes all.
        seed: of the draw.

    Raises:
        DataError: the file cannot be read, or there is no such pair.
    """
    lines = read_lines(path)
    if "output_1" in lines[0].values:
        found = [_llmbar(line) for line in lines]
    elif "preference" in lines[0].values and "responses" in lines[0].values:
        found = [pair for line in lines for pair in _qa_feedback(line)]
    else:
        found = list(_preferences(path))
    pairs = [pair for pair in found if pair.first.text != pair.second.text]
    if not pairs:
        raise DataError(f"{path.name}: has no pair with a better answer. Name a set of preferences.")
    if count is None or count >= len(pairs):
        return pairs
    return [pairs[place] for place in sorted(Random(seed).sample(range(len(pairs)), count))]


def against_labels(judge: Judge, pairs: Sequence[LabelledPair], *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How a judge of two answers agrees with labels.

    Args:
        judge: says P(the first is better).
        pairs: at least one; each is judged in both orders.
        draws: Of the bootstrap over prompts.
        seed: Of the bootstrap.

    Returns:
        By subset and for `all`: accuracy in either order and in both, consistency, kappa, the share of verdicts for
        what stands first, ties and invalid verdicts. `kept`: share of pairs in which both orders name the same answer,
        which are those that rule `preferred` makes; `wrong`: share of these that contradict the label, with a 95 %
        interval over prompts. It is the label smoothing that such pairs want.
    """
    asks = [Ask(one.prompt, order) for one in pairs for order in ((one.first, one.second), (one.second, one.first))]
    said = list(judgments(judge, asks))
    parts = {"all": list(range(len(pairs)))}
    names = sorted({pair.subset for pair in pairs})
    if len(names) > 1:
        parts |= {name: [n for n, pair in enumerate(pairs) if pair.subset == name] for name in names}
    return {
        "judge": judge.name,
        "subsets": {
            name: _agreement([pairs[n] for n in numbers], [said[2 * n : 2 * n + 2] for n in numbers], draws, seed)
            for name, numbers in parts.items()
        },
    }


def _agreement(
    pairs: Sequence[LabelledPair], said: Sequence[Sequence[Judgment]], draws: int, seed: int
) -> dict[str, Any]:
    gold = np.array([pair.gold for pair in pairs])
    order_ab = np.array([_verdict(ab, "1", "2") for ab, _ in said])
    order_ba = np.array([_verdict(ba, "2", "1") for _, ba in said])
    found: dict[str, Any] = asdict(ordered_agreement(gold, order_ab, order_ba))
    kept = (order_ab == order_ba) & ((order_ab == "1") | (order_ab == "2"))
    wrong: dict[str, Any] = {"wrong": None, "wrong_interval": None}
    if kept.any():
        clusters = np.array([pair.prompt.prompt_id for pair in pairs])[kept]
        estimate = clustered_share((order_ab != gold)[kept].astype(np.float64), clusters, seed=seed, draws=draws)
        known = all(map(isfinite, estimate.interval))
        wrong = {"wrong": estimate.value, "wrong_interval": list(estimate.interval) if known else None}
    everything = [judgment for both in said for judgment in both]
    answers = {one.response_id: one for pair in pairs for one in (pair.first, pair.second)}
    bias = figures(totals(everything, answers.values()))
    longer = [
        (len(pair.first.text) > len(pair.second.text)) == (pair.gold == "1")
        for pair in pairs
        if len(pair.first.text) != len(pair.second.text)
    ]
    return {
        "n": len(pairs),
        **{name: value if isfinite(value) else None for name, value in found.items()},
        "ties": sum(judgment.values[0] == 0.5 for judgment in everything),
        "invalid": sum(judgment.values[0] is None for judgment in everything),
        "kept": float(kept.mean()),
        **wrong,
        "prefers_longer": bias.get("prefers_longer"),
        "labels_prefer_longer": float(np.mean(longer)) if longer else None,
        "tokens_in": sum(judgment.tokens_in for judgment in everything),
        "tokens_out": sum(judgment.tokens_out for judgment in everything),
    }


def _verdict(judgment: Judgment, first: str, second: str) -> str:
    value = judgment.values[0]
    if value is None:
        return "invalid"
    return "tie" if value == 0.5 else first if value > 0.5 else second


def _llmbar(line: Line) -> LabelledPair:
    label = line.given("label")
    if label not in {1, 2, "1", "2"}:
        raise line.wrong("label", "1 or 2")
    prompt = Prompt.of((Message(role="user", content=line.text("prompt")),), source=line.place)
    first, second = (given_response(prompt, line.text(name)) for name in ("output_1", "output_2"))
    subset = line.values.get("subset")
    return LabelledPair(prompt, first, second, str(label), str(subset) if subset is not None else "all")


def _qa_feedback(line: Line) -> Iterator[LabelledPair]:
    votes, responses = line.given("preference"), line.given("responses")
    if not isinstance(votes, list) or len(votes) != len(QA_PAIRS) or not isinstance(responses, list):
        raise line.wrong("preference", "six votes on four responses")
    passages = line.values.get("passages") or []
    read = "\n\n".join("\n".join(map(str, one)) if isinstance(one, list) else str(one) for one in passages)
    text = f"{read}\n\n{line.text('question')}" if read else line.text("question")
    prompt = Prompt.of((Message(role="user", content=text),), source=line.place)
    answers = [given_response(prompt, str(one)) for one in responses]
    for (first, second), vote in zip(QA_PAIRS, votes, strict=True):
        if vote in {1, 2}:
            yield LabelledPair(prompt, answers[first], answers[second], str(vote), "all")


def _preferences(path: Path) -> Iterator[LabelledPair]:
    for given in Reading(find_source(str(path))):
        answers = {one.response_id: one for one in given.responses}
        for judgment in given.judgments:
            value = judgment.values[0]
            if judgment.kind == "preference" and value is not None and value != 0.5:
                first, second = (answers[subject] for subject in judgment.subjects)
                yield LabelledPair(given.prompt, first, second, "1" if value > 0.5 else "2", "all")
