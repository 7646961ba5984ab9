"""A language model as judge: asked by a prompt file, read strictly, asked once more, then invalid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import JsonValue

from prefloop.config import LlmJudge
from prefloop.judging.chat import CONTROL, Chat, Question, Said
from prefloop.judging.judge_prompt import JudgePrompt
from prefloop.judging.protocol import EMPTY, Ask, Verdict, settled_by_emptiness
from prefloop.judging.verdicts import choice_in, score_in, scores_in, verdict_in
from prefloop.pairing.combination import sigmoid
from prefloop.records import Message, seed_for

LETTERS = ("A", "B")
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

    def most_tokens(self, ask: Ask) -> tuple[int, int]:
        """Tokens that it may read and write about an ask, asked twice: no token says less than a byte."""
        texts = [*self.prompt.messages(ask, CONTROL), self.prompt.again(ask, CONTROL)]
        size = sum(len(message.content.encode()) + TURN_TOKENS for message in texts)
        return 2 * size + self.config.max_new_tokens, 2 * self.config.max_new_tokens

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
        questions = [self._question(asks[number]) for number in asked]
        unread: list[tuple[int, Question, Said]] = []
        for place, said in self._answers(questions):
            number = asked[place]
            values = self._read(said, asks[number])
            if None in values and said.text is not None:
                unread.append((number, questions[place], said))
            else:
                yield number, Verdict(values, said.why or said.text, said.tokens_in, said.tokens_out)
        again = [self._again(asks[number], question, said) for number, question, said in unread]
        for place, said in self._answers(again):
            number, _, first = unread[place]
            raw = f"{first.text}{AGAIN}{said.why or said.text}"
            tokens = first.tokens_in + said.tokens_in, first.tokens_out + said.tokens_out
            yield number, Verdict(self._read(said, asks[number]), raw, *tokens)

    def _answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Said]]:
        return (
            self.chat.answers(questions, self.config.temperature, self.config.max_new_tokens) if questions else iter(())
        )

    def _settled(self, ask: Ask) -> Verdict | None:
        """The verdict where an answer is empty; a judge that was shown nothing would grade the form of its question."""
        if self.kind == "preference":
            return settled_by_emptiness(ask)
        if not any(subject.text.strip() for subject in ask.subjects):
            return Verdict((self.prompt.file.lowest,) * len(ask.subjects), EMPTY)
        return None

    def _question(self, ask: Ask) -> Question:
        messages = self.prompt.messages(ask, self.chat.control)
        choices = LETTERS if self.prompt.file.reads == "choice" else ()
        return Question(messages, self._seed(ask), choices)

    def _again(self, ask: Ask, question: Question, said: Said) -> Question:
        told = Message(role="assistant", content=said.text or "")
        messages = (*question.messages, told, self.prompt.again(ask, self.chat.control))
        return Question(messages, self._seed(ask, "again"), question.choices)

    def _seed(self, ask: Ask, *words: str) -> int:
        return seed_for("judge", self.prompt.identity, *(one.text for one in ask.subjects), ask.repeat, *words)

    def _read(self, said: Said, ask: Ask) -> Values:
        count = len(ask.subjects)
        file, text = self.prompt.file, said.text
        lowest, highest = file.lowest or 0.0, file.highest or 0.0
        if text is None:
            return (None,) * (1 if self.kind == "preference" else count)
        match file.reads:
            case "score":
                return (score_in(text, lowest, highest),)
            case "scores":
                values = scores_in(text, count, lowest, highest)
                return tuple(v if one.text.strip() else lowest for v, one in zip(values, ask.subjects, strict=True))
            case "verdict":
                return (verdict_in(text),)
            case "choice":
                if said.logps is not None:
                    return (sigmoid(said.logps["A"] - said.logps["B"]),)
                return (choice_in(text),)
