"""Objectives: pure losses in one vocabulary of quantities. Importing this package registers all of them."""

from prefloop.objectives.alphapo import alphapo
from prefloop.objectives.batch_adaptive import (
    AveragedGapMoments,
    GapMoments,
    adapted_beta,
    alpha_dpo,
    alpha_dpo_offset,
    averaged_gap,
    beta_dpo,
    log_selection_weights,
)
from prefloop.objectives.combined import length_regularized_token_odpo
from prefloop.objectives.cpo import cpo, cpo_simpo, tpo, tpo_length_normalised
from prefloop.objectives.davir import davir_dpo
from prefloop.objectives.described import Description, Parameter, behaviour, choices, described, facts
from prefloop.objectives.discopop import discopop
from prefloop.objectives.dno import dno
from prefloop.objectives.dpo import dpo
from prefloop.objectives.dpop import dpop, dpop_outside_beta
from prefloop.objectives.exo import exo_pair
from prefloop.objectives.f_divergence import f_divergence_dpo
from prefloop.objectives.hinge import hinge, slic
from prefloop.objectives.inpo import inpo, inpo_gap, inpo_win_rates
from prefloop.objectives.ipo import ipo, ipo_per_token
from prefloop.objectives.ld_dpo import ld_dpo, ld_dpo_policy_only
from prefloop.objectives.length_normalized import length_normalized_dpo, simpo
from prefloop.objectives.length_regularized import length_regularized_dpo
from prefloop.objectives.mcts_dpo import first_difference, mcts_dpo, mcts_dpo_ipo, mcts_dpo_plain, visit_smoothing
from prefloop.objectives.mipo import mipo, mipo_margin, mipo_offset
from prefloop.objectives.mrpo import (
    MixedReference,
    clipped_to_anchor,
    exchanged_harmonic_mixture,
    geometric_mixture,
    harmonic_mixture,
    mixed_reference,
    mrpo,
    mrpo_geometric,
    mrpo_official,
)
from prefloop.objectives.nash_md import nash_md, nash_md_per_token
from prefloop.objectives.noisy_labels import conservative_dpo, robust_dpo
from prefloop.objectives.odds import asft, asft_align, orpo, orpo_with_prompt
from prefloop.objectives.odpo import (
    identity_offset,
    log_offset,
    log_ratio_offset,
    odpo,
    odpo_constant,
    odpo_identity,
    odpo_log_ratio,
)
from prefloop.objectives.optimal_transport import aot, aot_unpaired
from prefloop.objectives.optimism import selm, xpo
from prefloop.objectives.plackett_luce import plackett_luce_dpo
from prefloop.objectives.pointwise import apo_down, apo_zero, bco_pair, cal_dpo, nca_pair, sppo_hard
from prefloop.objectives.quantities import FUNCTIONALS, MODELS, REPEATED_ROLES, Functional, Quantity, parse_quantity
from prefloop.objectives.rebel import rebel
from prefloop.objectives.reference_free import reference_free_dpo
from prefloop.objectives.registry import Elsewhere, Fit, Objective, State, find_objective, objective, objectives
from prefloop.objectives.reward_model import (
    bradley_terry,
    bradley_terry_margin,
    pair_ranker,
    ranked_rewards,
    ranked_rewards_by_pairs,
)
from prefloop.objectives.rlhf import (
    Advantages,
    KlController,
    PpoTerms,
    RlooTerms,
    adapted_kl_coef,
    clipped_surrogate,
    clipped_value_error,
    generalized_advantages,
    kl_estimate,
    leave_one_out_advantages,
    ppo,
    ppo_adaptive_kl,
    ppo_terms,
    rloo,
    rloo_clipped,
    rloo_terms,
    token_rewards,
    whitened,
)
from prefloop.objectives.sopo import sopo, sopo_joint, used_rejected
from prefloop.objectives.spo import degree_cross_entropy, spo
from prefloop.objectives.sppo import sppo, sppo_pair
from prefloop.objectives.tdpo import sequential_kl, tdpo1, tdpo2
from prefloop.objectives.token_weights import (
    bmc,
    bmc_own_weights,
    bmc_weights,
    step_dpo,
    wpo,
    wpo_log_weights,
    wpo_uncapped,
)
from prefloop.objectives.unpaired import RewardMean, apo_zero_unpaired, bco, kto, kto_reference_point
from prefloop.objectives.with_likelihood import mpo, rpo, sft, unlikelihood

__all__ = [
    "FUNCTIONALS",
    "MODELS",
    "REPEATED_ROLES",
    "Advantages",
    "AveragedGapMoments",
    "Description",
    "Elsewhere",
    "Fit",
    "Functional",
    "GapMoments",
    "KlController",
    "MixedReference",
    "Objective",
    "Parameter",
    "PpoTerms",
    "Quantity",
    "RewardMean",
    "RlooTerms",
    "State",
    "adapted_beta",
    "adapted_kl_coef",
    "alpha_dpo",
    "alpha_dpo_offset",
    "alphapo",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "apo_zero_unpaired",
    "asft",
    "asft_align",
    "averaged_gap",
    "bco",
    "bco_pair",
    "behaviour",
    "beta_dpo",
    "bmc",
    "bmc_own_weights",
    "bmc_weights",
    "bradley_terry",
    "bradley_terry_margin",
    "cal_dpo",
    "choices",
    "clipped_surrogate",
    "clipped_to_anchor",
    "clipped_value_error",
    "conservative_dpo",
    "cpo",
    "cpo_simpo",
    "davir_dpo",
    "degree_cross_entropy",
    "described",
    "discopop",
    "dno",
    "dpo",
    "dpop",
    "dpop_outside_beta",
    "exchanged_harmonic_mixture",
    "exo_pair",
    "f_divergence_dpo",
    "facts",
    "find_objective",
    "first_difference",
    "generalized_advantages",
    "geometric_mixture",
    "harmonic_mixture",
    "hinge",
    "identity_offset",
    "inpo",
    "inpo_gap",
    "inpo_win_rates",
    "ipo",
    "ipo_per_token",
    "kl_estimate",
    "kto",
    "kto_reference_point",
    "ld_dpo",
    "ld_dpo_policy_only",
    "leave_one_out_advantages",
    "length_normalized_dpo",
    "length_regularized_dpo",
    "length_regularized_token_odpo",
    "log_offset",
    "log_ratio_offset",
    "log_selection_weights",
    "mcts_dpo",
    "mcts_dpo_ipo",
    "mcts_dpo_plain",
    "mipo",
    "mipo_margin",
    "mipo_offset",
    "mixed_reference",
    "mpo",
    "mrpo",
    "mrpo_geometric",
    "mrpo_official",
    "nash_md",
    "nash_md_per_token",
    "nca_pair",
    "objective",
    "objectives",
    "odpo",
    "odpo_constant",
    "odpo_identity",
    "odpo_log_ratio",
    "orpo",
    "orpo_with_prompt",
    "pair_ranker",
    "parse_quantity",
    "plackett_luce_dpo",
    "ppo",
    "ppo_adaptive_kl",
    "ppo_terms",
    "ranked_rewards",
    "ranked_rewards_by_pairs",
    "rebel",
    "reference_free_dpo",
    "rloo",
    "rloo_clipped",
    "rloo_terms",
    "robust_dpo",
    "rpo",
    "selm",
    "sequential_kl",
    "sft",
    "simpo",
    "slic",
    "sopo",
    "sopo_joint",
    "spo",
    "sppo",
    "sppo_hard",
    "sppo_pair",
    "step_dpo",
    "tdpo1",
    "tdpo2",
    "token_rewards",
    "tpo",
    "tpo_length_normalised",
    "unlikelihood",
    "used_rejected",
    "visit_smoothing",
    "whitened",
    "wpo",
    "wpo_log_weights",
    "wpo_uncapped",
    "xpo",
]
