"""What files of games, searches, mixtures and the classical pipeline mean by their names and numbers."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from prefloop.config import Options
from prefloop.errors import DataError
from prefloop.objectives import (
    MixedReference,
    PpoTerms,
    degree_cross_entropy,
    dpo,
    exchanged_harmonic_mixture,
    first_difference,
    harmonic_mixture,
    inpo_gap,
    mixed_reference,
    ppo_terms,
    rloo_terms,
    used_rejected,
    visit_smoothing,
)
from prefloop.testing.cases import Fields, Flags, Inputs, Run, VectorCase, graded, plain

DEGREES = {"degree_logits": "policy_degree_head_logits", "degree_labels": "degree_grades"}
RESPONSE = {
    "policy_logps": "policy_response_logps",
    "old_logps": "old_response_logps",
    "ref_logps": "ref_response_logps",
    "policy_token_logps": "policy_response_token_logps",
    "old_token_logps": "old_response_token_logps",
    "ref_token_logps": "ref_response_token_logps",
    "values": "policy_response_token_values",
    "old_values": "old_response_token_values",
    "scores": "response_scores",
    "win_probs": "response_win_probs",
}
"""Files about single answers do not name their role."""
COMPARISONS = {
    "chosen_rewards": "policy_chosen_rewards",
    "rejected_rewards": "policy_rejected_rewards",
    "ranked_rewards": "policy_ranked_rewards",
    "margins": "margin",
}
NASH = {
    "policy_first_logps": "policy_chosen_logps",
    "policy_second_logps": "policy_rejected_logps",
    "ref_first_logps": "ref_chosen_logps",
    "ref_second_logps": "ref_rejected_logps",
    "first_rewards": "chosen_win_probs",
    "second_rewards": "rejected_win_probs",
}
"""Where neither of two answers is the better one, one of them has to be called so here."""


def sure_labels(inputs: Inputs) -> Mapping[str, Tensor]:
    """The hard form is the pair's form with a probability of 1, where the file gives none."""
    return {"prob_chosen_wins": torch.ones_like(inputs["policy_chosen_logps"])}


def inpo_fields(run: Run) -> Mapping[str, Any]:
    """The gap that is regressed."""
    return {"h": run.call(inpo_gap, **run.hyper)}


def mrpo_fields(run: Run) -> Mapping[str, Any]:
    """The mixed reference and its weights."""
    official = run.flags.get("orientation") == "official"
    options = {name: run.hyper[name] for name in ("eta", "clip", "weights")}
    mixture = exchanged_harmonic_mixture if official else harmonic_mixture
    mixed: MixedReference = run.call(mixed_reference, mixture=mixture, **options)
    return {
        "mixed_ref_chosen_logps": mixed.chosen_logps,
        "mixed_ref_rejected_logps": mixed.rejected_logps,
        "ref_weights": mixed.weights,
    }


def spo_fields(run: Run) -> Mapping[str, Any]:
    """The two losses that are added up."""
    return {"alignment": run.call(dpo, beta=run.hyper["beta"]), "degree_ce": run.call(degree_cross_entropy)}


def sopo_fields(run: Run) -> Mapping[str, Any]:
    """Which rejected answers are learnt from."""
    return {"used_rejected": run.call(used_rejected, tau=run.hyper["tau"])}


def sapo_options(flags: Flags) -> Options:
    """ORPO's weight is called beta, as in TRL."""
    beta = "lam" if flags.get("loss") == "orpo" else "beta"
    return {beta if name == "beta" else name: value for name, value in flags.items() if name != "loss"}


def mcts_dpo_fields(run: Run) -> Mapping[str, Any]:
    """How unsure each label is, and where the answers part."""
    softened = run.flags.get("loss", "conservative") == "conservative"
    smoothing = run.call(visit_smoothing) if softened else torch.zeros(len(run["policy_chosen_token_logps"])).double()
    return {"label_smoothing": smoothing, "diverge_index": run.call(first_difference)}


def online_objective(case: VectorCase, where: str) -> str:
    """OAIF's losses are those of offline pairs; XPO and Nash-MD have their own."""
    found = {
        "online_dpo": "conservative_dpo" if "label_smoothing" in case.hyper else "dpo",
        "online_ipo": "ipo",
        "online_hinge": "hinge",
        "xpo": "xpo",
        "nash_md": "nash_md_per_token" if case.hyper.get("kl") == "per_token" else "nash_md",
    }
    method = str(case.hyper.get("method"))
    if method not in found:
        raise DataError(f"{where}: method = {method!r} is not known. Known: {', '.join(found)}.")
    return found[method]


def reference_sample(inputs: Inputs) -> Mapping[str, Tensor]:
    """In the file the reference's own sample is one of the two answers of the pair."""
    if "ref_sample_is_chosen" not in inputs:
        return {}
    chosen, rejected = inputs["policy_chosen_logps"], inputs["policy_rejected_logps"]
    return {"policy_response_logps": torch.where(inputs["ref_sample_is_chosen"] > 0, chosen, rejected)}


def comparison(case: VectorCase, _: str) -> str:
    """A margin is optional in the file."""
    return "bradley_terry_margin" if "margins" in case.inputs else "bradley_terry"


def ppo_fields(run: Run) -> Mapping[str, Any]:
    """Everything on the way, by token, and the means of both losses over the tokens."""
    names = inspect.signature(ppo_terms).parameters.keys() & run.hyper.keys()
    terms: PpoTerms = run.call(ppo_terms, **{name: run.hyper[name] for name in names})
    counted = run["response_token_mask"]
    of_tokens = {
        "token_rewards": terms.token_rewards,
        "advantages": terms.advantages,
        "returns": terms.returns,
        "used_advantages": terms.used_advantages,
    }
    return {
        **{name: run.inputs.rows(values, "policy_response_token_logps") for name, values in of_tokens.items()},
        "policy_loss": terms.policy_losses[counted].mean(),
        "value_loss": terms.value_losses[counted].mean(),
    }


def rloo_case(case: VectorCase, where: str) -> Fields:
    """A case of RLOO: samples in a line, those of one prompt one after the other."""
    modes = {"reinforce": None, "clipped": cast(float, case.hyper.get("cliprange", 0.2))}
    mode = str(case.hyper.get("mode", "reinforce"))
    if mode not in modes:
        raise DataError(f"{where}: mode = {mode!r} is not known. Known: {', '.join(modes)}.")
    known = Inputs({RESPONSE.get(name, name): value for name, value in case.inputs.items()})
    published = {RESPONSE[name]: name for name in ("policy_logps", "old_logps", "ref_logps", "scores")}
    options = {"kl_coef": 0.05, "normalize_advantages": False, **case.hyper}
    try:
        num_samples = cast(int, case.hyper["num_samples"])
        policy, old, ref, scores = (known[name].view(-1, num_samples) for name in published)
        terms = rloo_terms(
            policy,
            old,
            ref,
            scores,
            torch.ones_like(policy, dtype=torch.bool),
            kl_coef=cast(float, options["kl_coef"]),
            normalize_advantages=bool(options["normalize_advantages"]),
            cliprange=modes[mode],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}: inputs cannot be read ({error}). Expected lists of numbers: {', '.join(published)}."
        ) from error
    losses = terms.losses.flatten()
    fields = graded(losses, losses.mean(), known, published)
    return cast(Fields, plain({**fields, "rewards": terms.rewards.flatten(), "advantages": terms.advantages.flatten()}))
