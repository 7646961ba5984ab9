"""What a judge is asked: every answer alone, all side by side, or two at a time, at once or in waves.

A plan is a generator: it yields what is to be asked now, gets what was said of it in the same order, and ends when
nothing is left to ask. Which answer is shown first stands in every judgment, as the order of its subjects.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from math import ceil
from random import Random

from prefloop.config import (
    AgainstDesign,
    AllPairsDesign,
    ComparingDesign,
    DesignConfig,
    EachDesign,
    JointDesign,
    TournamentDesign,
)
from prefloop.data.next_turn import TURN
from prefloop.errors import DataError
from prefloop.judging.protocol import Ask
from prefloop.judging.record import ask_each
from prefloop.pairing.combination import win_matrix
from prefloop.pairing.tournament import bracket
from prefloop.records import Group, Judgment, Message, Prompt, Response, seed_for

Plan = Generator[list[Ask], Sequence[Judgment], None]
Two = tuple[Response, Response]


@dataclass(frozen=True)
class Answered:
    """A prompt with the answers that a judge is asked about."""

    prompt: Prompt
    responses: tuple[Response, ...]
    opponents: tuple[Response, ...]
    coin: Random
    """Draws which answer is shown first."""


def plan_of(
    design: DesignConfig,
    prompts: Iterable[Prompt],
    responses: Iterable[Response],
    opponents: Iterable[Response] = (),
    seed: Sequence[str | int] = (),
) -> Plan:
    """The plan of a design.

    Args:
        design: which answers are asked about together.
        prompts: of all answers.
        responses: the answers that are judged.
        opponents: those that they meet, under `against`.
        seed: words that, with a prompt's id, decide the order in which its answers are shown.

    Raises:
        DataError: a tournament is asked of a number of answers that is no power of two.
    """
    if isinstance(design, EachDesign):
        return _each(design, list(prompts), list(responses))
    if isinstance(design, AgainstDesign):
        prompts, responses, opponents = _from_the_first_question(list(prompts), list(responses), list(opponents))
    groups = answered(prompts, responses, opponents, seed)
    match design:
        case JointDesign():
            return together([_joint(design, group) for group in groups])
        case AllPairsDesign():
            return together([_compared(design, group, combinations(group.responses, 2)) for group in groups])
        case AgainstDesign():
            return together([_compared(design, one, product(one.responses, one.opponents)) for one in groups])
        case TournamentDesign():
            return together([_tournament(design, group) for group in groups])


def asked(plan: Plan, say: Callable[[Sequence[Ask]], Sequence[Judgment]]) -> list[Judgment]:
    """Everything that was said, wave by wave."""
    judgments: list[Judgment] = []
    asks = next(plan, None)
    while asks is not None:
        said = say(asks)
        judgments += said
        asks = _sent(plan, said)
    return judgments


def most_calls(design: DesignConfig, *, prompts: int, answers: int, opponents: int = 0) -> int:
    """How many asks a design makes at most.

    Args:
        design: which answers are asked about together.
        prompts: that have answers, alike many each.
        answers: to all of them.
        opponents: answers that they meet, to all of them.
    """
    each, met = (count / max(prompts, 1) for count in (answers, opponents))
    match design:
        case EachDesign():
            calls = float(answers)
        case JointDesign():
            calls = float(prompts)
        case AllPairsDesign():
            calls = prompts * each * (each - 1) / 2
        case AgainstDesign():
            calls = prompts * each * met
        case TournamentDesign():
            calls = prompts * (1 if each <= 2 else 1.5 * each - 1)
    twice = isinstance(design, ComparingDesign) and design.both_orders
    return ceil(calls) * design.repeats * (2 if twice else 1)


def answered(
    prompts: Iterable[Prompt], responses: Iterable[Response], opponents: Iterable[Response], seed: Sequence[str | int]
) -> list[Answered]:
    """Prompts that have answers, each with its own."""
    ours, theirs = _by_prompt(responses), _by_prompt(opponents)
    return [
        Answered(
            prompt,
            tuple(ours[prompt.prompt_id]),
            tuple(theirs.get(prompt.prompt_id, ())),
            Random(seed_for(*seed, prompt.prompt_id)),
        )
        for prompt in {prompt.prompt_id: prompt for prompt in prompts}.values()
        if prompt.prompt_id in ours
    ]


def whole_conversation(asked: Prompt, answer: Response) -> Response:
    """An answer to a later question as an answer to the first one: all that was said since, in one text.

    Nothing where the answer says nothing, so that it loses as any empty answer does.
    """
    said = [*asked.messages[-_since_the_first(asked) :], Message(role="assistant", content=answer.text)]
    text = "\n\n".join(f"{one.role.capitalize()}:\n{one.content}" for one in said) if answer.text.strip() else ""
    return answer.model_copy(update={"prompt_id": asked.root_id, "text": text, "token_ids": None})


def _since_the_first(asked: Prompt) -> int:
    """Messages that follow the first question of a suite: an answer and a question for every turn from the second."""
    return 2 * (int((asked.labels or {}).get(TURN, "1")) - 1)


def _from_the_first_question(
    prompts: Sequence[Prompt], *of_sides: Sequence[Response]
) -> tuple[list[Prompt], list[Response], list[Response]]:
    """Prompts, answers and their opponents, those to second questions as whole conversations.

    What two policies were asked second is the same question behind different answers: it is no common prompt.
    """
    later = {one.prompt_id: one for one in prompts if _since_the_first(one)}
    firsts = [one for one in prompts if one.prompt_id not in later]
    firsts += [
        one.model_copy(update={"prompt_id": one.root_id, "messages": one.messages[: -_since_the_first(one)]})
        for one in later.values()
    ]
    ours, theirs = (
        [whole_conversation(later[one.prompt_id], one) if one.prompt_id in later else one for one in side]
        for side in of_sides
    )
    return firsts, ours, theirs


def together(plans: Sequence[Plan]) -> Plan:
    """Several plans as one, each of whose waves asks what all of them ask then."""
    asking = {number: asks for number, plan in enumerate(plans) if (asks := next(plan, None)) is not None}
    while asking:
        said = iter((yield [ask for asks in asking.values() for ask in asks]))
        heard = {number: list(islice(said, len(asks))) for number, asks in asking.items()}
        asking = {number: asks for number, own in heard.items() if (asks := _sent(plans[number], own)) is not None}


def _each(design: EachDesign, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Plan:
    yield _repeated(ask_each(prompts, responses), design.repeats)


def _joint(design: JointDesign, group: Answered) -> Plan:
    shown = (group.coin.sample(group.responses, len(group.responses)) for _ in range(design.repeats))
    yield [Ask(group.prompt, tuple(answers), repeat) for repeat, answers in enumerate(shown)]


def _compared(design: ComparingDesign, group: Answered, pairs: Iterable[Two]) -> Plan:
    asks = [Ask(group.prompt, shown) for pair in pairs for shown in _orders(pair, design, group.coin)]
    if asks:
        yield _repeated(asks, design.repeats)


def _tournament(design: TournamentDesign, group: Answered) -> Plan:
    """Ends early where a comparison has no verdict: nobody knows who meets next."""
    size = len(group.responses)
    try:
        meetings = bracket(size)
    except ValueError as error:
        raise DataError(
            f"{group.prompt.source or f'prompt {group.prompt.prompt_id}'}: has {error} for a tournament. "
            "Set samples.num_samples to one, or another design."
        ) from error
    said: list[Judgment] = []
    matrix: dict[tuple[str, str], float] = {}
    wave = next(meetings)
    while True:
        pairs = [(group.responses[first], group.responses[second]) for first, second in wave.meetings]
        new = [pair for pair in pairs if _ids(pair) not in matrix]
        if new:
            said += yield from _answers_to(_compared(design, group, new))
            matrix = win_matrix(Group((group.prompt,), group.responses, tuple(said)))
        if any(_ids(pair) not in matrix for pair in pairs):
            return
        try:
            wave = meetings.send([matrix[_ids(pair)] for pair in pairs])
        except StopIteration:
            return


def _answers_to(plan: Plan) -> Generator[list[Ask], Sequence[Judgment], Sequence[Judgment]]:
    """What is said of the only wave of a plan."""
    return (yield next(plan))


def _ids(pair: Two) -> tuple[str, str]:
    return pair[0].response_id, pair[1].response_id


def _orders(pair: Two, design: ComparingDesign, coin: Random) -> tuple[Two, ...]:
    first, second = pair
    if design.both_orders:
        return (first, second), (second, first)
    return ((first, second),) if coin.random() < 0.5 else ((second, first),)


def _repeated(asks: Sequence[Ask], repeats: int) -> list[Ask]:
    return [Ask(ask.prompt, ask.subjects, repeat) for ask in asks for repeat in range(repeats)]


def _by_prompt(responses: Iterable[Response]) -> dict[str, list[Response]]:
    found: dict[str, list[Response]] = {}
    for response in responses:
        found.setdefault(response.prompt_id, []).append(response)
    return found


def _sent(plan: Plan, said: Sequence[Judgment]) -> list[Ask] | None:
    """What a plan asks next; None where it has ended."""
    try:
        return plan.send(said)
    except StopIteration:
        return None
