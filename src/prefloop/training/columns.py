"""What is known of all examples of a round without a model: one number an example, or one a token."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prefloop.errors import DataError
from prefloop.objectives import REPEATED_ROLES, Objective, Quantity, parse_quantity
from prefloop.policy import TokenRow
from prefloop.training.rows import TokenExample, example_data, role_of

Column = Tensor | tuple[Tensor, ...]
"""One number an example, or for each example one a token."""

Number = float | int | bool

MEMBER_NUMBERS = {"scores": "score", "win_probs": "win_prob", "visits": "visits", "labels": "label", "grades": "grade"}
"""Functional -> its name among the numbers of an example's member."""
EXAMPLE_NUMBERS = ("margin", "similarity", "prob_chosen_wins")
"""Quantities that stand among an example's own numbers under their names."""
KINDS = {"float": torch.float64, "int": torch.long, "bool": torch.bool}


def column(values: Sequence[Number | Sequence[Number]], dtype: torch.dtype = torch.float64) -> Column:
    """Numbers as a column."""
    if values and isinstance(values[0], Sequence):
        return tuple(torch.tensor(of_one, dtype=dtype) for of_one in values)
    return torch.tensor(values, dtype=dtype)


def picked(of_all: Column, indices: Sequence[int]) -> Tensor:
    """The numbers of some examples; those of tokens are padded on the right with 0."""
    if isinstance(of_all, Tensor):
        return of_all[list(indices)]
    return pad_sequence([of_all[index] for index in indices], batch_first=True)


def data_columns(
    examples: Sequence[TokenExample], objective: Objective, *, soft_labels: bool = False, missing: float | None = None
) -> dict[str, Column]:
    """All data quantities that training on an objective reads, and lengths and weights for its metrics.

    Args:
        examples: of a round.
        objective: that is trained.
        soft_labels: the answers are exchanged as often as the chosen one loses.
        missing: stands for numbers that an example lacks, where only the shape matters; None makes them an error.

    Raises:
        DataError: an example lacks a number.
    """
    known: dict[str, Column] = {
        name: torch.from_numpy(values) for name, values in example_data(examples, objective.roles).items()
    }
    wanted = [quantity for quantity in objective.needed(soft_labels=soft_labels) if quantity.what.source == "data"]
    if any(quantity.name == "mean_prompt_length" for quantity in wanted):
        wanted.append(parse_quantity("prompt_lengths"))
    wanted += [parse_quantity(f"{role}_mask") for role in objective.roles if role in REPEATED_ROLES]
    for quantity in wanted:
        if quantity.name in known or quantity.what.of == "step" or quantity.name == "uniforms":
            continue
        dtype = KINDS[quantity.what.kind]
        if quantity.functional in MEMBER_NUMBERS or quantity.name in EXAMPLE_NUMBERS:
            known[quantity.name] = column(_numbers(examples, quantity, objective, missing), dtype)
        else:
            known[quantity.name] = column([_counted(one, quantity) for one in examples], dtype)
    return known


def _numbers(
    examples: Sequence[TokenExample], quantity: Quantity, objective: Objective, missing: float | None
) -> list[Number | Sequence[Number]]:
    """A number that the example or one of its members carries; of a repeated role one a rank."""
    key = MEMBER_NUMBERS.get(quantity.functional, quantity.name)
    carried = [
        [one.numbers]
        if quantity.role is None
        else [numbers for name, numbers in one.member_numbers.items() if role_of(name) == quantity.role]
        for one in examples
    ]
    lacking = sum(any(key not in numbers for numbers in of_one) for of_one in carried)
    if lacking and missing is None:
        bearer = "the example" if quantity.role is None else f"the {quantity.role} answer"
        raise DataError(
            f"{objective.name} reads {quantity.name}, but in {lacking} of {len(examples)} examples {bearer} has no "
            f"number '{key}'. Choose a rule or data that give it."
        )
    found = [[numbers.get(key, 0.0 if missing is None else missing) for numbers in of_one] for of_one in carried]
    return [of_one if quantity.role in REPEATED_ROLES else of_one[0] for of_one in found]


def _counted(example: TokenExample, quantity: Quantity) -> Number | Sequence[Number]:
    """What is counted on the tokens of the example's answer, or of its prompt; of a repeated role a number a rank."""
    if quantity.name == "prompt_lengths":
        return len(example.prompt_ids) - 1
    assert quantity.role is not None
    count = COUNTED[quantity.functional]
    if quantity.role in REPEATED_ROLES:
        return [count(row, ()) for _, row in example.answers((quantity.role,))]  # pyright: ignore[reportReturnType]
    return count(example.rows[quantity.role], example.marked[quantity.role])


COUNTED: Mapping[str, Callable[[TokenRow, Sequence[bool]], Number | Sequence[Number]]] = {
    "lengths": lambda row, _marked: sum(row.counted),
    "mask": lambda _row, _marked: True,
    "token_mask": lambda row, _marked: row.counted,
    "token_ids": lambda row, _marked: row.answer_ids,
    "diff_mask": lambda _row, marked: marked,
    "prefix_lengths": lambda row, _marked: row.counted.index(True),
}
"""Functionals that are counted on an answer's tokens and on its marks."""
