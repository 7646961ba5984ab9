"""What is known of all examples of a round without a model: one number an example, or one a token."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prefloop.errors import DataError
from prefloop.objectives import Objective, Quantity, parse_quantity
from prefloop.training.rows import TokenExample, example_data

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
    for quantity in wanted:
        if quantity.name in known or quantity.what.of == "step" or quantity.name == "uniforms":
            continue
        dtype = KINDS[quantity.what.kind]
        if quantity.functional in MEMBER_NUMBERS or quantity.name in EXAMPLE_NUMBERS:
            known[quantity.name] = column(_numbers(examples, quantity, objective, missing), dtype)
        else:
            known[quantity.name] = column([COUNTED[quantity.functional](one, quantity) for one in examples], dtype)
    return known


def _numbers(
    examples: Sequence[TokenExample], quantity: Quantity, objective: Objective, missing: float | None
) -> list[float]:
    """A number that the example or one of its members carries."""
    key = MEMBER_NUMBERS.get(quantity.functional, quantity.name)
    carried = [one.numbers if quantity.role is None else one.member_numbers[quantity.role] for one in examples]
    lacking = sum(key not in numbers for numbers in carried)
    if lacking and missing is None:
        bearer = "the example" if quantity.role is None else f"the {quantity.role} answer"
        raise DataError(
            f"{objective.name} reads {quantity.name}, but in {lacking} of {len(examples)} examples {bearer} has no "
            f"number '{key}'. Choose a rule or data that give it."
        )
    return [numbers.get(key, 0.0 if missing is None else missing) for numbers in carried]


def _token_mask(example: TokenExample, quantity: Quantity) -> Sequence[Number]:
    return example.rows[str(quantity.role)].counted


def _token_ids(example: TokenExample, quantity: Quantity) -> Sequence[Number]:
    return example.rows[str(quantity.role)].answer_ids


def _diff_mask(example: TokenExample, quantity: Quantity) -> Sequence[Number]:
    return example.marked[str(quantity.role)]


def _prefix_length(example: TokenExample, quantity: Quantity) -> int:
    return example.rows[str(quantity.role)].counted.index(True)


def _prompt_length(example: TokenExample, quantity: Quantity) -> int:
    del quantity
    return len(example.prompt_ids) - 1


COUNTED: Mapping[str, Callable[[TokenExample, Quantity], Number | Sequence[Number]]] = {
    "token_mask": _token_mask,
    "token_ids": _token_ids,
    "diff_mask": _diff_mask,
    "prefix_lengths": _prefix_length,
    "prompt_lengths": _prompt_length,
}
"""Functionals that are counted on an example's tokens."""
