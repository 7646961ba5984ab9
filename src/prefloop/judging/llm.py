"""A language model as judge: asked by a prompt file, read strictly, asked once more, then invalid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, fsum, log
from typing import Literal

from pydantic import JsonValue

from prefloop.config import LlmJudge
from prefloop.judging.answers import Taken
from prefloop.judging.chat import CONTROL, Chat, Question, Said
from prefloop.judging.judge_prompt import JudgePrompt, Reads, broken
from prefloop.judging.protocol import EMPTY, Ask, Verdict, settled_by_emptiness
from prefloop.judging.verdicts import choice_in, number_in, score_in, scores_in, verdict_in
from prefloop.pairing.combination import sigmoid
from prefloop.records import Message, seed_for

SURE = 1e-12
"""Probabilities below it count as this."""
TURN_TOKENS = 32
"""What a template writes around a turn, at most."""
AGAIN = "\n\n[asked again]\n\n"

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Llm:
    """Asks a model about one answer, two, or all of a prompt's."""

    config: LlmJudge
    prompt: JudgePrompt
    model: str
    """Name and content of the model."""
    open_chat: Callable[[], Chat]

    @property
    def name(self) -> str:
        """The model, the prompt file, and how it is sampled."""
        settings = [f"t={self.config.temperature:g}"] * bool(self.config.temperature)
        return ":".join(["llm", self.model, self.prompt.name, self.prompt.identity[:8], *settings])

    @property
    def kind(self) -> Literal["score", "preference"]:
        """A preference between two answers, or scores."""
        return "preference" if self.prompt.file.shows == "two" else "score"

    @cached_property
    def chat(self) -> Chat:
        """The model itself."""
        return self.open_chat()

    def seen(self, ask: Ask) -> JsonValue:
        """Conversation and answers in the order shown, the gold answer where it is shown, and how long it may talk."""
        return {
            "prompt": [message.model_dump(mode="json", exclude_defaults=True) for message in ask.prompt.messages],
            "answers": [subject.text for subject in ask.subjects],
            "gold": ask.prompt.answer if self.prompt.shows_gold else None,
            "max_new_tokens": self.config.max_new_tokens,
        }

    def most(self, ask: Ask) -> Taken:
        """What an ask may take, each question put twice: no token says less than a byte."""
        if self._settled(ask) is not None:
            return Taken(0)
        labels = self.prompt.parts(ask)
        texts = [*self.prompt.messages(ask, CONTROL, labels[-1]), self.prompt.again(ask, CONTROL)]
        size = sum(len(message.content.encode()) + TURN_TOKENS for message in texts)
        times, written = len(labels), self.config.max_new_tokens
        return Taken(2 * times, times * (2 * size + written), times * 2 * written)

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """What the model says; of an answer that says nothing, the lowest score without asking.

        What cannot be read is asked once more, behind the first answer; what cannot be read then is invalid.
        """
        asked: list[int] = []
        for number, ask in enumerate(asks):
            settled = self._settled(ask)
            if settled is None:
                asked.append(number)
            else:
                yield number, settled
        parts = [(number, label) for number in asked for label in self.prompt.parts(asks[number])]
        questions = [self._question(asks[number], label) for number, label in parts]
        read: dict[int, dict[str, Verdict]] = {number: {} for number in asked}
        unread: list[tuple[int, Said]] = []
        for place, said in self._answers(questions):
            number, label = parts[place]
            values = self._read(said, asks[number], label)
            if None in values and said.text is not None:
                unread.append((place, said))
                continue
            read[number][label] = Verdict(values, said.why or said.text, said.tokens_in, said.tokens_out)
            yield from self._whole(number, asks[number], read)
        again = [self._again(asks[parts[place][0]], questions[place], said) for place, said in unread]
        for asked_again, said in self._answers(again):
            place, first = unread[asked_again]
            number, label = parts[place]
            raw = f"{first.text}{AGAIN}{said.why or said.text}"
            tokens = first.tokens_in + said.tokens_in, first.tokens_out + said.tokens_out
            read[number][label] = Verdict(self._read(said, asks[number], label), raw, *tokens, calls=2)
            yield from self._whole(number, asks[number], read)

    def _answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Said]]:
        return (
            self.chat.answers(questions, self.config.temperature, self.config.max_new_tokens) if questions else iter(())
        )

    def _whole(self, number: int, ask: Ask, read: Mapping[int, Mapping[str, Verdict]]) -> Iterator[tuple[int, Verdict]]:
        """The verdict on an ask, as soon as all questions about it were answered."""
        labels = self.prompt.parts(ask)
        said = [read[number][label] for label in labels if label in read[number]]
        if len(said) < len(labels):
            return
        values = tuple(value for one in said for value in one.values)
        raw = (
            said[0].raw
            if len(said) == 1
            else "\n".join(f"{label}: {one.raw}" for label, one in zip(labels, said, strict=True))
        )
        tokens = (sum(one.tokens_in for one in said), sum(one.tokens_out for one in said))
        yield number, Verdict(self._shown(values, ask), raw, *tokens, calls=sum(one.calls for one in said))

    def _shown(self, values: Values, ask: Ask) -> Values:
        """Among several scores the lowest for an answer that says nothing; of two letters for right, what both say."""
        file = self.prompt.file
        if file.shows == "all":
            return tuple(v if one.text.strip() else file.lowest for v, one in zip(values, ask.subjects, strict=True))
        if file.shows == "one" and file.reads == "choice":
            return (both_letters(*values),)
        return values

    def _settled(self, ask: Ask) -> Verdict | None:
        """The verdict where an answer is empty; a judge that was shown nothing would grade the form of its question."""
        if self.kind == "preference":
            return settled_by_emptiness(ask)
        if not any(subject.text.strip() for subject in ask.subjects):
            return Verdict((self.prompt.file.lowest or 0.0,) * len(ask.subjects), EMPTY, calls=0)
        return None

    def _question(self, ask: Ask, label: str) -> Question:
        messages = self.prompt.messages(ask, self.chat.control, label)
        return Question(messages, self._seed(ask, *[label] * bool(label)), self.prompt.choices)

    def _again(self, ask: Ask, question: Question, said: Said) -> Question:
        told = Message(role="assistant", content=broken(said.text or "", self.chat.control))
        messages = (*question.messages, told, self.prompt.again(ask, self.chat.control))
        return Question(messages, self._seed(ask, "again"), question.choices)

    def _seed(self, ask: Ask, *words: str) -> int:
        return seed_for("judge", self.prompt.identity, *(one.text for one in ask.subjects), ask.repeat, *words)

    def _read(self, said: Said, ask: Ask, label: str) -> Values:
        """What an answer says; None for what it does not."""
        values = self._as_asked(said, ask)
        if self.prompt.file.reads == "choice" and label == "B":  # the letter that means right
            return tuple(None if value is None else 1 - value for value in values)
        return values

    def _as_asked(self, said: Said, ask: Ask) -> Values:
        count = len(ask.subjects)
        file, text = self.prompt.file, said.text
        if text is None:
            return (None,) * (count if file.reads == "scores" else 1)
        if file.reads == "scores":
            return scores_in(text, count, file.lowest or 0.0, file.highest or 0.0)
        if said.logps is not None:
            choice = file.reads == "choice"
            return (sigmoid(said.logps["A"] - said.logps["B"]) if choice else expected_score(said.logps),)
        one: Mapping[Reads, Callable[[str], float | None]] = {
            "score": lambda text: score_in(text, file.lowest or 0.0, file.highest or 0.0),
            "verdict": verdict_in,
            "choice": choice_in,
            "expected_score": lambda text: number_in(text, self.prompt.choices),
        }
        return (one[file.reads](text),)


def both_letters(first: float | None, second: float | None) -> float | None:
    """P(right) of what was asked twice with the letters exchanged: log-odds averaged, so that a letter's share cancels.

    Args:
        first: P(right) with one letter for right; None where there was no verdict.
        second: the same with the other letter.
    """
    if first is None or second is None:
        return None
    odds = [log(max(prob, SURE)) - log(max(1 - prob, SURE)) for prob in (first, second)]
    return sigmoid(fsum(odds) / 2)


def expected_score(logps: Mapping[str, float]) -> float:
    """Scores weighted by their probabilities, taken among each other (G-Eval, arXiv:2303.16634, equation 1).

    Args:
        logps: log-probability of each score as the model's answer, in nats; one at least is above minus infinity.
    """
    top = max(logps.values())
    weights = {float(score): exp(logp - top) for score, logp in logps.items()}
    return fsum(score * weight for score, weight in weights.items()) / fsum(weights.values())
