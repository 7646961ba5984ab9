"""Verifiers: judges that compare an answer with the prompt's gold answer. 1 is right, 0 is wrong."""

import re
from decimal import Decimal
from functools import partial

from prefloop.config import ExactMatchJudge, FinalNumberJudge
from prefloop.errors import DataError
from prefloop.judging.rules import Rule
from prefloop.records import Prompt, Response

NUMBER = re.compile(
    r"""(?:(?<![\w)])(?P<sign>-))?  # a minus behind a digit, a letter or a bracket subtracts
        [$£€]?(?P<digits>[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?|\.[0-9]+)""",
    re.VERBOSE,
)
FINAL = re.compile(r"####\s*(.*)|\\boxed\{([^{}]*)\}")
"""Where an answer says which of its numbers it means: GSM8K's mark, or a box."""


def exact_match(config: ExactMatchJudge) -> Rule:
    """The gold answer and nothing else, but for the space around it."""
    name = f"rule:exact_match{':ignore_case' * config.ignore_case}"
    return Rule(name, partial(_equals, ignore_case=config.ignore_case), config.says)


def final_number(config: FinalNumberJudge) -> Rule:
    """The number at which an answer ends is that of the gold answer: 1,000 and $1000.00 are the same number."""
    return Rule("rule:final_number", _ends_at, config.says)


def number_at_the_end(text: str) -> Decimal | None:
    r"""The last number of a text; of what stands behind the last `####` or in the last `\boxed{}`, if that has one."""
    marked = [first or second for first, second in FINAL.findall(text)]
    found = _numbers(marked[-1]) if marked else []
    found = found or _numbers(text)
    return found[-1] if found else None


def _numbers(text: str) -> list[Decimal]:
    plain = text.replace("\N{MINUS SIGN}", "-").replace("\\$", "$")
    return [
        Decimal((one["sign"] or "") + one["digits"].replace(",", ""))  # "007" and "1.50" are numbers as well
        for one in NUMBER.finditer(plain)
    ]


def _equals(prompt: Prompt, response: Response, *, ignore_case: bool) -> float:
    gold, answer = _gold(prompt, "exact_match").strip(), response.text.strip()
    return float(gold.casefold() == answer.casefold() if ignore_case else gold == answer)


def _ends_at(prompt: Prompt, response: Response) -> float:
    gold = number_at_the_end(_gold(prompt, "final_number"))
    if gold is None:
        raise DataError(
            f"{_where(prompt)}: its gold answer {prompt.answer!r} has no number. judge final_number needs one; "
            "use exact_match, or repair the prompt set."
        )
    return float(number_at_the_end(response.text) == gold)


def _gold(prompt: Prompt, judge: str) -> str:
    if prompt.answer is None:
        raise DataError(
            f"{_where(prompt)}: has no gold answer, which judge {judge} compares with. "
            "Give every prompt one, or choose another judge."
        )
    return prompt.answer


def _where(prompt: Prompt) -> str:
    return prompt.source or f"prompt {prompt.prompt_id}"
