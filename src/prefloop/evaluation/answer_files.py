"""A policy's answers to a suite as other tools read them: AlpacaEval, FastChat's MT-Bench, Arena-Hard."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.data import next_turn
from prefloop.evaluation.alpaca_files import write_annotations
from prefloop.evaluation.arena_hard import markdown_metadata
from prefloop.evaluation.scoreboard import Answers
from prefloop.records import Prompt, Response

NO_TIME = 0.0
"""Where tools write when an answer was given: equal answers are equal files."""


@dataclass(frozen=True)
class Conversation:
    """One question with a policy's answers to its turns."""

    prompt: Prompt
    """Of the first turn."""
    index: int
    """Which of several samples."""
    answers: tuple[Response, ...]

    @property
    def question_id(self) -> str:
        """What its suite calls the question, or else its hash."""
        labels = self.prompt.labels or {}
        return labels.get("question_id") or labels.get("uid") or self.prompt.prompt_id

    @property
    def texts(self) -> list[str]:
        """What the policy said."""
        return [answer.text for answer in self.answers]

    @property
    def asked(self) -> str:
        """The first question as a text; what came before it stands before it."""
        messages = self.prompt.messages
        if len(messages) == 1:
            return messages[0].content
        return "\n\n".join(f"{message.role}: {message.content}" for message in messages)

    @property
    def questions(self) -> list[str]:
        """The questions that were answered."""
        later = [turn.content for turn in self.prompt.later or ()]
        return [self.asked, *later][: len(self.answers)]


def conversations(prompts: Mapping[str, Prompt], answers: Answers) -> list[Conversation]:
    """The answers by question and sample, in the order of the answers to first turns.

    Args:
        prompts: Prompts of first turns by their id.
        answers: Of one policy. A second turn has one answer for each different first one.
    """
    after = {one.prompt_id: one for one in answers.responses if answers.question(one).turn == 2}
    found: list[Conversation] = []
    for response in answers.responses:
        if answers.question(response).turn == 1:
            prompt = prompts[response.prompt_id]
            asked = next_turn(prompt, response)
            later = () if asked is None or asked.prompt_id not in after else (after[asked.prompt_id],)
            found.append(Conversation(prompt, response.index, (response, *later)))
    return found


def write_alpaca_eval(path: Path, model: str, given: Sequence[Conversation]) -> None:
    """`model_outputs.json`: first turns only, the first sample of each."""
    write_annotations(
        path,
        [
            {
                "dataset": (one.prompt.labels or {}).get("dataset", ""),
                "instruction": one.asked,
                "output": one.texts[0],
                "generator": model,
            }
            for one in given
            if one.index == 0
        ],
    )


def write_fastchat(path: Path, model: str, given: Sequence[Conversation]) -> None:
    """FastChat's `model_answer/MODEL.jsonl`: a line a question, with its samples as choices."""
    _write_lines(
        path,
        [
            {
                "question_id": _number_or_text(samples[0].question_id),
                "answer_id": samples[0].answers[0].response_id,
                "model_id": model,
                "choices": [{"index": place, "turns": one.texts} for place, one in enumerate(samples)],
                "tstamp": NO_TIME,
            }
            for samples in _by_question(given)
        ],
    )


def write_arena_hard(path: Path, model: str, given: Sequence[Conversation]) -> None:
    """Arena-Hard v2.0's `model_answer/MODEL.jsonl`: the conversation as messages, and what style control reads."""
    _write_lines(path, [_arena_row(model, one) for one in given if one.index == 0])


def _arena_row(model: str, one: Conversation) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for asked, said in zip(one.questions, one.texts, strict=True):
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": {"answer": said}}]
    last = one.answers[-1]
    return {
        "uid": one.question_id,
        "ans_id": last.response_id,
        "model": model,
        "messages": messages,
        "tstamp": NO_TIME,
        "metadata": {"token_len": last.num_tokens, **markdown_metadata(last.text)},
    }


def file_name(model: str) -> str:
    """A model's name as a file's: what is no letter, digit, dot or hyphen becomes an underscore."""
    return re.sub(r"[^\w.\-]+", "_", model).strip("_") or "model"


def _by_question(given: Sequence[Conversation]) -> list[list[Conversation]]:
    found: dict[str, list[Conversation]] = {}
    for one in given:
        found.setdefault(one.prompt.prompt_id, []).append(one)
    return [sorted(samples, key=lambda one: one.index) for samples in found.values()]


def _number_or_text(name: str) -> int | str:
    """FastChat's ids are whole numbers."""
    return int(name) if name.isdecimal() else name


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
