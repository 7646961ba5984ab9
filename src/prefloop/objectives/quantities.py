"""The vocabulary of objectives: a parameter's name says which number is meant, and who computes it.

    {policy|ref|prev|aux_ref|old}_{role}_{functional}   what a model computes about an answer
    {policy|ref|prev|aux_ref|old}_{functional}          what a model computes about the prompt
    {role}_{functional}                                 what is known of an answer without a model
    {functional}                                        what is known of a prompt, an example or an optimiser step

`policy` is the model being trained, the only one through which gradient flows; the other models are frozen and named
by a recipe under `references`. Several `aux_ref`, and roles that an example has several times, add a second axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from prefloop.errors import did_you_mean
from prefloop.records import Role

MODELS = ("policy", "ref", "prev", "aux_ref", "old")
REPEATED_ROLES: tuple[Role, ...] = ("ranked", "sampled", "degree")
"""Roles that an example has several times, in order: a second axis `ranks`, padded, with the data quantity `mask`."""

ROLES_TO_COME: Mapping[str, str] = {
    "gold": "rules that keep a gold answer",
}
"""Roles that no rule makes yet."""

Kind = Literal["float", "int", "bool", "state"]


@dataclass(frozen=True)
class Functional:
    """One kind of number."""

    shape: str
    unit: str
    source: Literal["model", "data"]
    meaning: str
    of: Literal["answer", "prompt", "example", "step"] = "answer"
    kind: Kind = "float"
    gradient: bool = False
    """It flows where the policy computes it."""
    head: str | None = None
    """What the model needs beside its language-model head."""
    live_reference: bool = False
    """The frozen reference has to be there while the policy is trained; cached numbers do not do."""
    coming: str | None = None
    """What training computes it with once that is there; None where it is computed already."""


FUNCTIONALS: dict[str, Functional] = {
    "logps": Functional(
        "pairs", "nats", "model", "log probability of the counted tokens, summed, EOS included", gradient=True
    ),
    "token_logps": Functional(
        "pairs tokens",
        "nats",
        "model",
        "log probability of each token of the answer; 0 where the token is not counted, and behind the answer's end",
        gradient=True,
    ),
    "token_log_sum_sq": Functional(
        "pairs tokens",
        "nats",
        "model",
        "log of sum_v p_v^2 at each token, the chance that two draws agree; 0 where the token is not counted",
        gradient=True,
    ),
    "seq_kl": Functional(
        "pairs",
        "nats",
        "model",
        "KL(reference || policy) of the next token, summed over the counted tokens' positions",
        gradient=True,
        live_reference=True,
    ),
    "entropy": Functional(
        "pairs",
        "nats",
        "model",
        "entropy of the next token, summed over the counted tokens' positions",
        gradient=True,
    ),
    "token_entropy": Functional(
        "pairs tokens",
        "nats",
        "model",
        "entropy of the next token at each token; 0 where the token is not counted",
        gradient=True,
    ),
    "logits": Functional(
        "pairs tokens vocab",
        "1",
        "model",
        "logits at each token, for vocabularies small enough to keep them",
        gradient=True,
        coming="whole distributions",
    ),
    "rewards": Functional("pairs", "reward", "model", "output of the reward head", gradient=True, head="reward"),
    "token_values": Functional(
        "pairs tokens",
        "reward",
        "model",
        "output of the value head before each token",
        gradient=True,
        head="value",
    ),
    "head_logits": Functional(
        "pairs classes",
        "1",
        "model",
        "logits of a classification head on the answer",
        gradient=True,
        head="class",
    ),
    "prompt_logps": Functional(
        "pairs",
        "nats",
        "model",
        "log probability of the prompt's tokens after the first, summed",
        of="prompt",
        gradient=True,
    ),
    "lengths": Functional("pairs", "tokens", "data", "number of counted tokens, EOS included"),
    "token_mask": Functional("pairs tokens", "1", "data", "which tokens are counted", kind="bool"),
    "token_ids": Functional("pairs tokens", "1", "data", "the tokens; 0 behind the answer's end", kind="int"),
    "diff_mask": Functional(
        "pairs tokens", "1", "data", "which tokens are marked, such as those that an editor changed", kind="bool"
    ),
    "prefix_lengths": Functional(
        "pairs", "tokens", "data", "tokens at the answer's beginning that are given and not learnt", kind="int"
    ),
    "scores": Functional("pairs", "reward", "data", "what a judge gave the answer"),
    "win_probs": Functional("pairs", "1", "data", "chance that the answer beats one of the policy's own"),
    "visits": Functional("pairs", "1", "data", "how often a tree search went through the answer"),
    "labels": Functional("pairs", "1", "data", "whether the answer is a good one", kind="bool"),
    "grades": Functional("pairs", "1", "data", "how far the answer was degraded, counted from 0", kind="int"),
    "mask": Functional("pairs", "1", "data", "which of the ranks an example has", kind="bool"),
    "prompt_lengths": Functional("pairs", "tokens", "data", "tokens of the prompt after the first", of="prompt"),
    "weights": Functional("pairs", "1", "data", "weight of the example in the mean", of="example"),
    "prob_chosen_wins": Functional(
        "pairs", "1", "data", "chance that the chosen answer beats the rejected one", of="example"
    ),
    "margin": Functional("pairs", "reward", "data", "by how much the chosen answer is better", of="example"),
    "similarity": Functional("pairs", "1", "data", "how alike the two answers are", of="example"),
    "uniforms": Functional("pairs", "1", "data", "one random number in [0, 1) an example and step", of="example"),
    "mean_chosen_length": Functional(
        "", "tokens", "data", "mean counted tokens of the step's chosen answers", of="step"
    ),
    "mean_gold_length": Functional("", "tokens", "data", "mean counted tokens of the step's gold answers", of="step"),
    "mean_prompt_length": Functional("", "tokens", "data", "mean of the step's prompt_lengths", of="step"),
    "state": Functional(
        "", "", "data", "running statistics, updated on the whole step before its loss", of="step", kind="state"
    ),
}
"""Everything that an objective may ask for, in one table; a new objective that needs more adds its row."""


@dataclass(frozen=True)
class Quantity:
    """A parsed parameter name."""

    name: str
    model: str | None
    role: str | None
    functional: str

    @property
    def what(self) -> Functional:
        """Its row in the table."""
        return FUNCTIONALS[self.functional]

    @property
    def of_model(self) -> str:
        """Its name among what one model computes."""
        return self.name.removeprefix(f"{self.model}_")

    @property
    def gradient(self) -> bool:
        """Gradient flows only through what the policy computes."""
        return self.model == "policy" and self.what.gradient

    @property
    def coming(self) -> str | None:
        """What training will compute it with; None where it does already."""
        return self.what.coming or ROLES_TO_COME.get(str(self.role))

    @property
    def shape(self) -> str:
        """Its dimensions, as an objective's signature writes them; empty for one number."""
        first, _, rest = self.what.shape.partition(" ")
        second = "models" if self.model == "aux_ref" else "ranks" if self.role in REPEATED_ROLES else ""
        own = rest.replace("tokens", f"{self.role}_tokens")
        return " ".join(filter(None, (first, second, own)))

    @property
    def meaning(self) -> str:
        """What it is, as a phrase."""
        of = f"{self.role} answer: " if self.role else ""
        return f"{of}{self.what.meaning}"

    def with_roles(self, exchanged: Mapping[str, str]) -> "Quantity":
        """The same number of the other answer, where its role is among those exchanged."""
        if self.role is None or self.role not in exchanged:
            return self
        model = f"{self.model}_" if self.model else ""
        other = exchanged[self.role]
        return Quantity(f"{model}{other}_{self.functional}", self.model, other, self.functional)


def parse_quantity(name: str) -> Quantity:
    """The quantity that a parameter names.

    Raises:
        ValueError: the name does not follow the grammar; says what does.
    """
    model = next((model for model in MODELS if name.startswith(f"{model}_")), None)
    rest = name.removeprefix(f"{model}_") if model else name
    role = None if rest in FUNCTIONALS else next((role for role in get_args(Role) if rest.startswith(f"{role}_")), None)
    functional = rest.removeprefix(f"{role}_")
    if functional not in FUNCTIONALS or (role is None) != (FUNCTIONALS[functional].of != "answer"):
        raise ValueError(f"'{name}' is not a quantity. {did_you_mean(functional, FUNCTIONALS)}")
    if (FUNCTIONALS[functional].source == "model") != (model is not None):
        expected = "a model in front of it" if model is None else "no model in front of it"
        raise ValueError(f"'{name}' is not a quantity: {functional} takes {expected}.")
    return Quantity(name, model, role, functional)
