"""The pairs that a data set brought."""

from collections.abc import Iterator

from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@rule(writes=Example, roles=("chosen", "rejected"), reads_given=True)
def given(group: Group) -> Iterator[Example | Dropped]:
    """Every preference between two answers, as the data set states it; ties and equal texts give nothing.

    The example carries how sure the preference is, and the weight and the margin that stand beside it; where answers
    have scores, from the data set or from a judge, the members carry them.

    Args:
        group: a prompt with answers and preference judgments, P(first wins).
    """
    scored = {subject: {"score": score} for subject, score in scores(group).items()}
    for judgment in group.judgments:
        if judgment.kind != "preference" or len(judgment.subjects) != 2:
            continue
        prob_first_wins = judgment.values[0]
        first, second = (group.by_id[subject] for subject in judgment.subjects)
        if prob_first_wins is None:
            yield Dropped("no verdict")
        elif prob_first_wins == 0.5:
            yield Dropped("tie")
        elif first.text == second.text:
            yield Dropped("same text")
        else:
            ahead = prob_first_wins > 0.5
            better, worse = (first, second) if ahead else (second, first)
            beside = {key: value if ahead or key != "margin" else -value for key, value in judgment.numbers.items()}
            yield pair(
                group,
                member("chosen", better, **scored.get(better.response_id, {})),
                member("rejected", worse, **scored.get(worse.response_id, {})),
                why=f"given: {judgment.judge}",
                **{**beside, "prob_chosen_wins": max(prob_first_wins, 1 - prob_first_wins)},
            )
