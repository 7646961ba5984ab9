"""Which given answers are imitated, and which of them fine-tuning has most to gain from (DavIR)."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from prefloop.pairing import Dropped, demonstrations, find_rule, learnable
from prefloop.records import Example, Group, Judgment

Build = Callable[..., Group]
Prefers = Callable[..., list[Judgment]]
BASE, TUNED = "log_likelihood:initial", "log_likelihood:fine_tuned"
RULE = find_rule("learnable", "it")


def kept(made: Sequence[object]) -> list[str]:
    return [one.reason if isinstance(one, Dropped) else one.member("chosen").response_id for one in made]  # type: ignore[attr-defined]


def likely(build: Build, base: Sequence[float | None], tuned: Sequence[float | None], **options: object) -> Group:
    said = {f"{BASE}:v1": base, f"{TUNED}:v1": tuned}
    return build(said, steps=["given"] * len(base), **options)


def test_a_score_is_the_share_of_its_loss_that_an_answer_lost(build: Build) -> None:
    """Losses of 10, 20 and 30 nats become 5, 15 and 10."""
    group = likely(build, [-10.0, -20.0, -30.0], [-5.0, -15.0, -10.0], lengths=[2, 4, 5])

    def numbers(normalise: str) -> list[float]:
        made = learnable(group, min_learnability=-99.0, normalise=normalise)  # type: ignore[arg-type]
        return [one.numbers["learnability"] for one in made if isinstance(one, Example)]

    assert numbers("base") == pytest.approx([0.5, 0.25, 2 / 3])
    assert numbers("ref") == pytest.approx([1.0, 1 / 3, 2.0])
    assert numbers("tokens") == pytest.approx([2.5, 1.25, 4.0])
    assert numbers("none") == pytest.approx([5.0, 5.0, 20.0])
    assert kept(list(learnable(group, min_learnability=0.5))) == ["a", "not learnable enough", "c"]
    assert next(learnable(group, min_learnability=0.5)).why == "learnable: 0.500 of its loss"  # type: ignore[union-attr]
    turned = learnable(group, min_learnability=0.0, base=TUNED, fine_tuned=BASE)
    assert kept(list(turned)) == ["not learnable enough"] * 3


@pytest.mark.parametrize(
    ("share", "threshold", "expected"),
    [(0.1, 2 / 3, ["c"]), (0.5, 0.5, ["a", "c"]), (0.75, 0.25, ["a", "b", "c"]), (1.0, -0.5, ["a", "b", "c", "d"])],
)
def test_a_fitted_threshold_keeps_the_share_rounded_up(
    build: Build, share: float, threshold: float, expected: list[str]
) -> None:
    group = likely(build, [-10.0, -20.0, -30.0, -8.0], [-5.0, -15.0, -10.0, -12.0])
    options = RULE.checked({"min_learnability": "fitted", "share": share}, "it")
    found = RULE.fitted(lambda: [group], options)["min_learnability"]
    assert found["value"] == pytest.approx(threshold)
    assert found["figures"] == {"demonstrations": 4.0, "kept_without_ties": float(len(expected))}
    made = list(RULE.apply(group, options, {"min_learnability": found["value"]}))
    assert [one for one in kept(made) if len(one) == 1] == expected


def test_what_a_model_says_nothing_of_is_left_out_and_counted(build: Build) -> None:
    group = likely(build, [-10.0, None], [-5.0, -1.0])
    assert kept(list(learnable(group, min_learnability=0.0))) == ["a", "no likelihood under both models"]
    silent = likely(build, [None], [-1.0])
    options = RULE.checked({"min_learnability": "fitted"}, "it")
    found = RULE.fitted(lambda: [silent], options)["min_learnability"]
    assert (found["value"], found["figures"]) == (0.0, {"demonstrations": 0.0})
    assert found["warning"] == "No demonstration has a likelihood under both models."


def said_of(kind: str, values: Mapping[str, float | None]) -> list[Judgment]:
    return [
        Judgment.model_validate({"judge": "human", "kind": kind, "subjects": (name,), "values": (value,)})
        for name, value in values.items()
    ]


def test_given_answers_that_lost_no_pair_and_have_no_bad_label_are_imitated(build: Build, prefers: Prefers) -> None:
    def made(extra: Sequence[Judgment], steps: Sequence[str] = ("given",) * 3) -> list[str]:
        return kept(list(demonstrations(build([None] * 3, steps=list(steps), extra=extra))))

    bad = "a worse answer"
    assert made([]) == ["a", "b", "c"]
    assert made(prefers({"ab": 1.0, "cb": 0.8})) == ["a", bad, "c"]
    assert made(prefers({"ab": 0.0})) == [bad, "b", "c"]
    assert made(prefers({"ab": 0.5, "bc": None})) == ["a", "b", "c"]
    assert made(said_of("label", {"a": 1.0, "b": 0.0, "c": None})) == ["a", bad, "c"]
    assert made(said_of("label", {"a": 0.5})) == ["a", "b", "c"]
    assert made(said_of("score", {"a": 0.0})) == ["a", "b", "c"]
    assert made([], ("given", "samples", "given")) == ["a", "c"]
    of_two = Judgment(judge="human", kind="label", subjects=("a", "b"), values=(0.0, 1.0))
    assert made([of_two]) == [bad, "b", "c"]
