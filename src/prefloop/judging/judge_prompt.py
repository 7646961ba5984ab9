"""What a language model is asked as a judge: a prompt file, shipped or a user's own, filled with one ask."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError, model_validator

from prefloop.config import Config, Shown
from prefloop.errors import DataError, RecipeError, did_you_mean
from prefloop.judging.protocol import Ask
from prefloop.judging.verdicts import KEY, SCORE, SCORE_OF, VERDICT
from prefloop.records import Message, digest

Reads = Literal["score", "scores", "verdict", "choice", "expected_score"]
"""How its answer is read: one score, a score of each answer, [[A]] [[B]] or [[C]], a single letter A or B, or a single
digit, whose expectation is the score. Of one answer the letter says whether it is right; it is asked twice, with the
letters exchanged, so that what a model gives to a letter cancels."""

READS: Mapping[Shown, tuple[Reads, ...]] = {
    "one": ("score", "expected_score", "choice"),
    "two": ("verdict", "choice"),
    "all": ("scores", "expected_score"),
}
DEFAULTS: Mapping[Shown, str] = {"one": "additive", "two": "compare", "all": "six_points_jointly"}
"""Which shipped prompt is used where none is named."""
PLACEHOLDERS = ("conversation", "answers", "gold", "mark", "label", "labels", "right", "wrong", "lowest", "highest")
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class PromptFile(Config):
    """The content of a prompt file."""

    shows: Shown
    """How many answers it shows: one, two, or all."""
    reads: Reads
    """How the model's answer is read."""
    lowest: float | None = None
    """The worst score that it asks for."""
    highest: float | None = None
    """The best score that it asks for."""
    system: str = ""
    """The system turn; empty for none."""
    user: str
    """The user's turn, with `{conversation}` and `{answers}` where these belong, and `{gold}` for the gold answer.

    Where all answers are shown and a score is read off one digit, it is asked about one after the other, `{label}`.
    """
    again: str
    """What is said when an answer could not be read."""

    @model_validator(mode="after")
    def _has_a_scale(self) -> "PromptFile":
        one_digit = self.reads == "expected_score"
        if (one_digit and self.shows == "all") != ("{label}" in self.user):
            raise ValueError("{label}, the answer that is asked about, goes with shows: all and reads: expected_score")
        if (self.shows == "one" and self.reads == "choice") != ("{right}" in self.user and "{wrong}" in self.user):
            raise ValueError("{right} and {wrong}, letters, go with shows: one and reads: choice")
        if self.reads not in {"score", "scores", "expected_score"}:
            return self
        if self.lowest is None or self.highest is None:
            raise ValueError("a score needs lowest and highest")
        if one_digit and not (self.lowest < self.highest and {self.lowest, self.highest} <= set(map(float, range(10)))):
            raise ValueError("a score that is read off one digit needs lowest and highest among 0 to 9")
        return self

    @model_validator(mode="after")
    def _is_whole(self) -> "PromptFile":
        if self.reads not in READS[self.shows]:
            raise ValueError(f"reads: {self.reads} does not go with shows: {self.shows}, which has {READS[self.shows]}")
        for name in ("conversation", "answers"):
            if f"{{{name}}}" not in self.user:
                raise ValueError(f"user does not have {{{name}}}, so that the judge would not see it")
        for text in (self.system, self.user, self.again):
            for name in PLACEHOLDER.findall(text):
                if name not in PLACEHOLDERS:
                    raise ValueError(f"{{{name}}} stands for nothing. {did_you_mean(name, PLACEHOLDERS)}")
        return self


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt with its name."""

    name: str
    file: PromptFile

    @cached_property
    def identity(self) -> str:
        """Hash of what it says."""
        return digest(self.file.model_dump(mode="json"))

    @property
    def choices(self) -> tuple[str, ...]:
        """Answers of the model whose probabilities are the verdict."""
        if self.file.reads == "choice":
            return ("A", "B")
        if self.file.reads != "expected_score":
            return ()
        return tuple(str(score) for score in range(int(self.file.lowest or 0), int(self.file.highest or 0) + 1))

    def parts(self, ask: Ask) -> list[str]:
        """What is asked one after the other about an ask: its answers by label, or each letter for right."""
        if self.file.shows == "one" and self.file.reads == "choice":
            return ["A", "B"]
        labels = labels_of(self.file.shows, len(ask.subjects))
        return labels if self.file.shows == "all" and self.file.reads == "expected_score" else [""]

    def questions(self, answers: float) -> float:
        """How many questions an ask is that shows so many answers."""
        file = self.file
        if file.shows == "one" and file.reads == "choice":
            return 2.0
        return answers if file.shows == "all" and file.reads == "expected_score" else 1.0

    def messages(self, ask: Ask, control: re.Pattern[str], label: str = "") -> tuple[Message, ...]:
        """The conversation with the judge that asks about an ask.

        Args:
            ask: the prompt, and the answers in the order in which they are shown.
            label: the answer that is asked about, or the letter that means right, where one is after the other.
            control: control tokens of the judge's model; spelt out in an answer they are broken, so that no answer can
                end its turn.

        Raises:
            DataError: the prompt file shows the gold answer, and the prompt has none.
        """
        filled = self._filled(ask, control) | {"label": label, "right": label, "wrong": "A" if label == "B" else "B"}
        asking = Message(role="user", content=_fill(self.file.user, filled).strip())
        if not self.file.system:
            return (asking,)
        return (Message(role="system", content=_fill(self.file.system, filled).strip()), asking)

    def again(self, ask: Ask, control: re.Pattern[str]) -> Message:
        """What is said when the answer could not be read."""
        return Message(role="user", content=_fill(self.file.again, self._filled(ask, control)).strip())

    @property
    def shows_gold(self) -> bool:
        """Whether the judge sees the prompt's gold answer."""
        return any("{gold}" in text for text in (self.file.system, self.file.user))

    def _filled(self, ask: Ask, control: re.Pattern[str]) -> dict[str, str]:
        texts = [f"{message.role}: {message.content}" for message in ask.prompt.messages]
        answers = [subject.text for subject in ask.subjects]
        gold = ask.prompt.answer if self.shows_gold else ""
        if gold is None:
            raise DataError(
                f"{ask.prompt.source or f'prompt {ask.prompt.prompt_id}'}: has no gold answer, which the judge's "
                f"prompt {self.name} shows. Give every prompt one, or take another prompt file."
            )
        mark = mark_for([*texts, *answers, gold], ask.repeat)
        labels = labels_of(self.file.shows, len(answers))
        names = [f"answer {label}".strip() for label in labels]
        safe = [disarmed(text, control) for text in answers]
        return {
            "conversation": fenced("conversation", disarmed("\n\n".join(texts), control), mark),
            "answers": "\n\n".join(fenced(name, text, mark) for name, text in zip(names, safe, strict=True)),
            "gold": fenced("right answer", disarmed(gold, control), mark),
            "mark": mark,
            "labels": ", ".join(labels),
            "lowest": f"{self.file.lowest or 0:g}",
            "highest": f"{self.file.highest or 0:g}",
        }


def judge_prompt(name: str | None, shows: Shown) -> JudgePrompt:
    """A prompt by its shipped name or its file; without either the shipped one for so many answers.

    Raises:
        RecipeError: there is none, it is not whole, or it shows another number of answers than it is to.
    """
    name = name or DEFAULTS[shows]
    shipped = {file.name.removesuffix(".yaml"): file for file in (files("prefloop.judging") / "prompts").iterdir()}
    source = shipped.get(name, Path(name).expanduser())
    try:
        found = PromptFile.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecipeError(f"judge.prompt is '{name}', which is no file. {did_you_mean(name, shipped)}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{name}: not a prompt file in YAML: {' '.join(str(error).split())[:200]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"{name}: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}. Expected a prompt "
            "file with shows, reads, user and again, like those that `prefloop` ships."
        ) from error
    if found.shows != shows:
        raise RecipeError(
            f"judge.prompt {name} shows {SHOWN[found.shows]}, but the design shows {SHOWN[shows]}. Take another "
            f"design, or another prompt, such as {DEFAULTS[shows]}."
        )
    return JudgePrompt(Path(name).stem, found)


SHOWN: Mapping[Shown, str] = {"one": "one answer", "two": "two answers", "all": "all answers"}


def mark_for(texts: list[str], repeat: int) -> str:
    """Sixteen hexadecimal digits that stand in none of the texts, others for every call."""
    attempt = 0
    while (mark := digest([texts, repeat, attempt])[:16]) in "\n".join(texts):
        attempt += 1
    return mark


def fenced(name: str, text: str, mark: str) -> str:
    """A text between two marks that it cannot contain."""
    return f"<<{name} {mark}>>\n{text}\n<<end of {name} {mark}>>"


def disarmed(text: str, control: re.Pattern[str]) -> str:
    """A text in which a space without width breaks what is more than text.

    Control tokens, so that a tokenizer reads them as text; and what looks like a verdict, so that a judge who quotes it
    has not given it.
    """
    for pattern in (control, VERDICT, SCORE, SCORE_OF, KEY):
        text = broken(text, pattern)
    return text


def broken(text: str, pattern: re.Pattern[str]) -> str:
    """A text in which a space without width stands behind the first character of whatever a pattern finds."""
    return pattern.sub(lambda found: f"{found[0][0]}\u200b{found[0][1:]}", text) if pattern.pattern else text


def labels_of(shows: Shown, count: int) -> list[str]:
    """What answers are called: nothing, A and B, or 1 to K."""
    return {"one": [""], "two": ["A", "B"], "all": [str(number + 1) for number in range(count)]}[shows]


def _fill(text: str, filled: Mapping[str, str]) -> str:
    """Placeholders filled in one pass, so that nothing in an answer is taken for one."""
    return PLACEHOLDER.sub(lambda found: filled[found[1]], text)
