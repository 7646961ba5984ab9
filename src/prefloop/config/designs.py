"""Which answers a judge is asked about together, by `type`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefloop.config.base import Config

Shown = Literal["one", "two", "all"]
"""How many of a prompt's answers one ask shows."""


class Design(Config):
    """What all designs have."""

    shows: ClassVar[Shown]
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often the same is asked: of judges that do not say the same every time."""


class EachDesign(Design):
    """Every answer alone."""

    shows: ClassVar[Shown] = "one"
    type: Literal["each"] = "each"


class JointDesign(Design):
    """All answers to a prompt side by side, every time in a new order that the recipe's seed draws."""

    shows: ClassVar[Shown] = "all"
    type: Literal["joint"]


class ComparingDesign(Design):
    """What designs of two answers have."""

    shows: ClassVar[Shown] = "two"
    both_orders: bool = True
    """Every two answers are shown twice, each of them first once; what is given for the place can then be taken out.
    Otherwise once, and the recipe's seed draws which is first."""


class AllPairsDesign(ComparingDesign):
    """Every two answers to a prompt."""

    type: Literal["all_pairs"]


class AgainstDesign(ComparingDesign):
    """Every answer with every answer of another step to the same prompt."""

    type: Literal["against"]
    opponents: str
    """The step whose answers they meet: `teacher`, `previous.samples`, a step of the set-up."""


class TournamentDesign(ComparingDesign):
    """Neighbours, then winners with winners and losers with losers, at last the best with the worst (INPO).

    For rule `tournament`: 3K/2 - 1 comparisons of K answers, in log2(K) + 1 waves. K is a power of two.
    """

    type: Literal["tournament"]


DesignConfig = Annotated[
    EachDesign | JointDesign | AllPairsDesign | AgainstDesign | TournamentDesign, Field(discriminator="type")
]
