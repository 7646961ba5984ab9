"""Files of kinds `selection`, `procedure` and `tabular`: their inputs to the product's own functions, and back."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import fsum, isnan
from typing import Any

import numpy as np
import torch

from prefloop.errors import DataError
from prefloop.pairing.combination import Combine, combined, extremes
from prefloop.pairing.edits import diff_masks
from prefloop.pairing.goals import goal_orders, goal_text, has_goal, with_goal
from prefloop.pairing.length_corrected import Candidate, arange, search_alpha, usable
from prefloop.pairing.online import (
    after_penalty,
    enough,
    pick_first_two,
    pick_max_max,
    pick_max_min,
    pick_max_min_length,
)
from prefloop.pairing.own_answer import by_rank
from prefloop.pairing.prompted import gap_mixture, gap_schedule
from prefloop.pairing.rated_text import best_and_worst_said
from prefloop.pairing.recommendation import Recommendation, self_play_rows
from prefloop.pairing.replay import offline_and_generated
from prefloop.pairing.segments import ReplayBuffer, segment_range, splice
from prefloop.pairing.selection import filter_by_epoch, highest, joint_evidence, learnability
from prefloop.pairing.steps import Continuation, better_steps, first_bad_step, split_at_step, wrong_answers
from prefloop.pairing.teacher import teacher_pairs
from prefloop.pairing.tournament import tournament_rounds
from prefloop.pairing.tree import Child, PathNode, back_up, node_value, puct, sibling_pair, step_prior
from prefloop.pairing.win_rates import labels_of_matrix, labels_of_scores
from prefloop.pairing.worst_of_k import worst_of_k_samples
from prefloop.records import Message
from prefloop.statistics import best_of_n_kl, best_of_n_mean
from prefloop.testing.cases import Compute, Fields, VectorCase
from prefloop.training.average import MovingAverage
from prefloop.worlds import prompted_optimum, self_play_optimum, soft_policy_iteration

Values = Mapping[str, Any]
Read = Callable[[Values, Values], Any]
"""Takes hyper-parameters and inputs as published, returns what the file calls `expected`."""

NO_PAIR: Fields = {"chosen": None, "rejected": None}


def reading(read: Read) -> Compute:
    """A file whose results stand under `expected`."""

    def compute(case: VectorCase, where: str) -> Fields:
        try:
            return {"expected": read(case.hyper, case.inputs)}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
            raise DataError(
                f"{where}: cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}). "
                "Expected hyper and inputs as the file's schema has them."
            ) from error

    return compute


@dataclass(frozen=True)
class ByOperation:
    """A file whose cases name the operation that they are about."""

    operations: Mapping[str, Read]

    def __call__(self, case: VectorCase, where: str) -> Fields:
        """Runs the operation of a case (DataError where there is none of its name)."""
        if case.op is None or case.op not in self.operations:
            raise DataError(f"{where}: op is {case.op!r}, expected one of {', '.join(self.operations)}.")
        return reading(self.operations[case.op])(case, where)


def _pair(found: tuple[int, int] | None) -> dict[str, int] | None:
    return found and {"chosen": found[0], "rejected": found[1]}


def _known(value: float | None) -> bool:
    return value is not None and not isnan(value)


# ------------------------------------------------------------------------------------------------------------- pairs


def _dice_search(hyper: Values, inputs: Values) -> Fields:
    prompts: list[list[Candidate]] = []
    for candidates in inputs["prompts"]:
        kept = [
            (index, one["policy_logp"] - one["prev_ref_logp"], one["length"])
            for index, one in enumerate(candidates)
            if usable(one["length"], cut=one["truncated"], min_chars=hyper["min_chars"], max_chars=hyper["max_chars"])
            and _known(one["policy_logp"])
            and _known(one["prev_ref_logp"])
        ]
        prompts.append(kept if len(kept) >= hyper["min_candidates"] else [])
    grid = arange(*hyper["grid"])
    found = search_alpha(prompts, grid, stop_at_rise=True, ties="last")
    return {
        "alpha": found.alpha,
        "mean_length_gap": found.mean_length_gap,
        "mean_length_gap_at_0": found.mean_length_gap_at_start,
        "evaluated": found.evaluated,
        "pairs": [_pair(two) for two in found.pairs],
    }


def _dice_mix(hyper: Values, inputs: Values) -> Fields:
    counts = offline_and_generated(hyper["gamma"], inputs["n_offline"], inputs["n_generated"])
    return {"from_generated": counts[0], "from_offline": counts[1]}


def _length_bias(hyper: Values, inputs: Values) -> Fields:
    prompts = [
        [(index, score, length) for index, (score, length) in enumerate(scored) if _known(score)]
        for scored in (list(zip(one["scores"], one["lengths"], strict=True)) for one in inputs["prompts"])
    ]
    grid = [hyper["alpha_start"] + number * hyper["alpha_step"] for number in range(hyper["alpha_count"])]
    found = search_alpha(prompts, grid, stop_at_rise=False)
    at_zero = search_alpha(prompts, [0.0], stop_at_rise=False)
    return {
        "alpha": found.alpha,
        "mean_length_gap": found.mean_length_gap,
        "mean_length_gap_at_zero": at_zero.mean_length_gap,
        "pairs": [_pair(two) for two in found.pairs],
    }


def _dno(hyper: Values, inputs: Values) -> Fields:
    counts = {"teacher_over_student": 0, "student_over_teacher": 0, "student_over_student": 0}
    pairs: list[list[list[int]]] = []
    for prompt in inputs["prompts"]:
        found = teacher_pairs(prompt["scores"], prompt["is_teacher"], prompt["defective"], **hyper)
        pairs.append([list(two) for two in found])
        for two in found:
            sides = ["teacher" if prompt["is_teacher"][index] else "student" for index in two]
            name = "_over_".join(sides)
            counts[name] = counts.get(name, 0) + 1
    return {"pairs": pairs, "counts": counts}


def _inpo(_: Values, inputs: Values) -> Fields:
    preference = inputs["preference"]
    found = tournament_rounds(len(preference), lambda first, second: preference[first][second])
    return {
        "best": found.best,
        "worst": found.worst,
        "kept": found.kept,
        "comparisons": [list(two) for two in found.comparisons],
        "n_comparisons": len(found.comparisons),
    }


def _online(hyper: Values, inputs: Values) -> list[Fields | None]:
    return [_online_row(hyper, row) for row in inputs["rows"]]


def _online_row(hyper: Values, row: Values) -> Fields | None:
    known = [index for index, reward in enumerate(row["rewards"]) if _known(reward)]
    if not enough(row["rewards"], hyper["K"]):
        return None
    ended = row.get("ends_with_eos", [True] * len(row["rewards"]))
    penalty = hyper.get("missing_eos_penalty") or 0.0
    rewards = after_penalty([row["rewards"][i] for i in known], [ended[i] for i in known], penalty)
    match hyper["pick"]:
        case "max_min":
            found = pick_max_min(rewards)
        case "max_min_length":
            lengths = [row["lengths"][index] for index in known]
            found = pick_max_min_length(rewards, lengths, hyper.get("length_penalty", 0.0))
        case "max_max":
            found = pick_max_max(rewards)
        case "first_two":
            found = pick_first_two(rewards)
        case other:
            raise ValueError(f"pick is {other!r}")
    if found is None:
        return None
    chosen, rejected = found
    return {"chosen": known[chosen], "rejected": known[rejected], "margin": rewards[chosen] - rewards[rejected]}


def _selm(_: Values, inputs: Values) -> Fields:
    return _pair(by_rank(inputs["ranks"])) or NO_PAIR


def _self_rewarding(hyper: Values, inputs: Values) -> Fields:
    scores, found = best_and_worst_said(inputs["judgements"], hyper.get("min_judgements", 1))
    return {"scores": scores, **(_pair(found) or NO_PAIR)}


def _sopo(hyper: Values, inputs: Values) -> Fields:
    return asdict(worst_of_k_samples(inputs["scores"], inputs["cosine_to_chosen"], hyper["tau"]))


def _sppo(hyper: Values, inputs: Values) -> Fields:
    include_self = hyper.get("include_self", True)
    if "matrix" in inputs:
        found = labels_of_matrix(inputs["matrix"], include_self=include_self)
    else:
        found = labels_of_scores(inputs["scores"], include_self=include_self)
    if found.pair is None:
        return {**NO_PAIR, "win_probs": found.win_probs}
    chosen, rejected = found.pair
    return {
        "chosen": chosen,
        "rejected": rejected,
        "chosen_win_prob": found.win_probs[chosen],
        "rejected_win_prob": found.win_probs[rejected],
        "pair_prob": found.pair_prob,
        "win_probs": found.win_probs,
    }


# ----------------------------------------------------------------------------------------- selections of a whole set


def _bees(hyper: Values, inputs: Values) -> Fields:
    found = joint_evidence(
        inputs["margins"],
        hyper["bounds"],
        k=hyper["k"],
        require_positive=hyper.get("require_positive", False),
        prob_eps=hyper.get("prob_eps", 1e-9),
    )
    return asdict(found)


def _davir(hyper: Values, inputs: Values) -> Fields:
    scores = learnability(
        inputs["base_nll"], inputs["ref_nll"], inputs["lengths"], normalise=hyper.get("normalise", "base")
    )
    return {"scores": scores, "selected": highest(scores, hyper["k"])}


def _fdpo(hyper: Values, inputs: Values) -> Fields:
    return asdict(
        filter_by_epoch(inputs["chosen_rewards"], inputs["generated_rewards_per_epoch"], **hyper),
    )


# --------------------------------------------------------------------------------------------------- reward ensembles


def _aggregated(hyper: Values, inputs: Values) -> list[float]:
    names: Mapping[str, Combine] = {
        "mean": "mean",
        "wco": "worst_case",
        "uwo": "uncertainty_weighted",
    }
    combine = names[hyper["objective"]]
    uncertainty, ddof = hyper.get("lambda", 0.5), hyper.get("ddof", 0)
    return [combined(said, combine, uncertainty=uncertainty, ddof=ddof) for said in zip(*inputs["scores"], strict=True)]


def _ensemble_select(hyper: Values, inputs: Values) -> Fields:
    return _pair(extremes(_aggregated(hyper, inputs))) or {"chosen": 0, "rejected": None}


def _best_of_n(hyper: Values, inputs: Values) -> Fields:
    proxy = np.array(inputs["proxy"], dtype=np.float64)
    return {
        name: best_of_n_mean(np.array(inputs[name], dtype=np.float64), hyper["n"], ranked_by=proxy)
        for name in ("proxy", "gold")
        if name in inputs
    }


# ---------------------------------------------------------------------------------------------------------- procedures


def _bmc_diff(_: Values, inputs: Values) -> Fields:
    chosen, rejected = diff_masks(inputs["chosen_ids"], inputs["rejected_ids"], inputs.get("ignore_ids", ()))
    return {"chosen_diff_mask": chosen, "rejected_diff_mask": rejected}


def _puct(hyper: Values, inputs: Values) -> Fields:
    children = [Child(one["Q"], one["N"], one["prior"]) for one in inputs["children"]]
    scores = puct(children, inputs["parent_N"], hyper["w_exp"])
    return {"scores": scores, "select": scores.index(max(scores))}


def _prior(hyper: Mapping[str, Any], inputs: Mapping[str, Any]) -> float:
    logps = inputs["token_logps"]
    return step_prior(fsum(logps), len(logps), hyper.get("length_penalty", 1.25))


def _back_up(hyper: Values, inputs: Values) -> list[Fields]:
    path = [
        PathNode(one["N"], one["value"], one["V"], tuple((n, q) for n, q in one["other_children"]))
        for one in inputs["path"]
    ]
    backed = back_up(path, hyper.get("gamma", 1.0))
    return [{"N": node.visits, "V": node.state_value, "Q": node.q} for node in backed]


def _siblings(hyper: Values, inputs: Values) -> list[Fields | None]:
    levels = [[Child(one["Q"], one["N"]) for one in level] for level in inputs["levels"]]
    pairs = [sibling_pair(level, hyper.get("worse", "worst")) for level in levels]
    return [asdict(found) if found else None for found in pairs]


def _relabelled(hyper: Values, inputs: Values) -> Fields:
    made: list[Fields] = []
    for one in inputs["pairs"]:
        messages = [Message.model_validate(message) for message in one["prompt"]]
        if has_goal(messages, hyper["template"]):
            raise ValueError("the prompt has a goal already")
        orders = goal_orders(
            one["chosen_score"],
            one["rejected_score"],
            drop_ties=hyper.get("drop_ties", True),
            goals=hyper.get("goals", ("chosen", "rejected")),
        )
        for goal, kept in orders:
            asked = with_goal(messages, goal_text(hyper["template"], goal), hyper["placement"])
            if asked is None:
                raise ValueError("no question to put a goal before")
            texts = [one["chosen"], one["rejected"]]
            made.append(
                {
                    "prompt": [message.model_dump(include={"role", "content"}) for message in asked],
                    "chosen": texts[0 if kept else 1],
                    "rejected": texts[1 if kept else 0],
                    "goal": goal,
                }
            )
    return {"pairs": made}


def _segment(hyper: Values, inputs: Values) -> Fields:
    length, start = segment_range(inputs["response_length"], inputs["prompt_length"], **hyper)
    return {"segment_length": length, "start_range": list(start)}


def _spliced(hyper: Values, inputs: Values) -> list[int]:
    return splice(inputs["response"], inputs["start"], inputs["segment_length"], inputs["generated"], hyper["eos"])


def _averaged(hyper: Values, inputs: Values) -> list[float]:
    average = MovingAverage({"": torch.tensor(inputs["ema"], dtype=torch.float64)}, hyper["decay"])
    for policy in inputs["policy_steps"]:
        average.take({"": torch.tensor(policy, dtype=torch.float64)})
    return average.weights[""].tolist()


def _buffered(hyper: Values, inputs: Values) -> Fields:
    buffer = ReplayBuffer(hyper["size"])
    for name, said in inputs["events"]:
        if name == "add":
            buffer.add(said)
        else:
            buffer.count(said)
    return {"items": buffer.items, "probabilities": buffer.probabilities()}


def _self_play(hyper: Values, inputs: Values) -> list[Fields]:
    rows = [Recommendation(**row) for row in inputs["rows"]]
    kept = self_play_rows(rows, limit=hyper["limit"], drop_equal=hyper.get("drop_equal", True))
    return [{"prompt": row.prompt, "chosen": row.chosen, "rejected": rejected} for row, rejected in kept]


def _self_play_optimum(hyper: Values, inputs: Values) -> list[float]:
    return self_play_optimum(inputs["reference"], inputs["data"], inputs["negatives"], hyper["beta"])


def _collected(_: Values, inputs: Values) -> list[int]:
    finals = [sample.get("final") for sample in inputs["samples"]]
    return wrong_answers(finals, inputs["truth"], inputs["max_per_question"])


def _verdict(_: Values, inputs: Values) -> int | None:
    return first_bad_step(inputs["text"], inputs.get("first_bad", "incorrect"))


def _split(_: Values, inputs: Values) -> Fields | None:
    found = split_at_step(inputs["solution"], inputs["k"])
    return found and asdict(found)


def _rectified(_: Values, inputs: Values) -> list[str]:
    continuations = [Continuation(one["text"], one.get("final")) for one in inputs["continuations"]]
    return better_steps(inputs["rejected_step"], inputs["truth"], continuations)


def _iterated(hyper: Values, inputs: Values) -> Fields:
    return asdict(soft_policy_iteration(inputs["preference"], inputs["initial_policy"], **hyper))


SELECTIONS: Mapping[str, Compute] = {
    "bees": reading(_bees),
    "bmc_diff": reading(_bmc_diff),
    "davir_selection": reading(_davir),
    "dice": ByOperation({"search": _dice_search, "mix": _dice_mix}),
    "dno_selection": reading(_dno),
    "dno_tabular": reading(_iterated),
    "fdpo": reading(_fdpo),
    "inpo_selection": reading(_inpo),
    "length_bias_selection": reading(_length_bias),
    "mcts_dpo_tree": ByOperation(
        {
            "puct": _puct,
            "prior": _prior,
            "value": lambda _, inputs: node_value(**inputs),
            "backup": _back_up,
            "pairs": _siblings,
        }
    ),
    "online_dpo_selection": reading(_online),
    "reward_augmented": reading(_relabelled),
    "rm_ensembles": ByOperation(
        {
            "aggregate": _aggregated,
            "best_of_n": _best_of_n,
            "kl_best_of_n": lambda hyper, _: best_of_n_kl(hyper["n"]),
            "select": _ensemble_select,
        }
    ),
    "sapo_pipeline": ByOperation({"truncation": _segment, "splice": _spliced, "ema": _averaged, "buffer": _buffered}),
    "self_rewarding": reading(_self_rewarding),
    "selm_selection": reading(_selm),
    "sopo_selection": reading(_sopo),
    "sppo_selection": reading(_sppo),
    "sprec": ByOperation({"build": _self_play, "optimum": _self_play_optimum}),
    "srpo_prompting": ByOperation(
        {
            "mixture": lambda hyper, inputs: gap_mixture(inputs["plus_logits"], inputs["minus_logits"], hyper["gap"]),
            "schedule": lambda hyper, _: gap_schedule(hyper["rounds"], hyper["start"], hyper["end"]),
            "optimum": lambda hyper, inputs: prompted_optimum(**inputs, **hyper),
        }
    ),
    "step_dpo_pipeline": ByOperation(
        {"collect_errors": _collected, "parse_verdict": _verdict, "split_at_step": _split, "rectify": _rectified}
    ),
}
"""File stem -> what computes its cases."""
