"""Groups whose answers are named by letters, with what was said of them."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from prefloop.pairing import Dropped
from prefloop.records import Example, Group, Judgment, Message, Prompt, Response

PROMPT = Prompt.of((Message(role="user", content="How are you?"),))
Scores = Sequence[float | None]


def build_group(
    scores: Scores | Mapping[str, Scores],
    *,
    steps: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
    cut: Sequence[bool] | None = None,
    extra: Sequence[Judgment] = (),
) -> Group:
    """Answers a, b, c, ... with scores from one judge or, by judge, from several."""
    by_judge = scores if isinstance(scores, Mapping) else {"rule:test": scores}
    size = max(map(len, by_judge.values()))
    names = [chr(ord("a") + number) for number in range(size)]
    responses = tuple(
        Response(
            response_id=name,
            prompt_id=PROMPT.prompt_id,
            root_id=PROMPT.root_id,
            step=steps[number] if steps else "samples",
            text=texts[number] if texts else f"text {name}",
            token_ids=(0,) * (lengths[number] if lengths else 5),
            finish_reason="length" if cut and cut[number] else "stop",
            index=number,
        )
        for number, name in enumerate(names)
    )
    said = [
        Judgment(judge=judge, kind="score", subjects=(name,), values=(value,))
        for judge, values in by_judge.items()
        for name, value in zip(names, values, strict=True)
    ]
    return Group(prompts=(PROMPT,), responses=responses, judgments=(*said, *extra))


def read_made(made: object) -> list[str]:
    """Every example as "chosen>rejected", every drop as its reason."""
    assert isinstance(made, list)
    found: list[str] = []
    for one in made:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(one, Dropped):
            found.append(one.reason)
        else:
            assert isinstance(one, Example)
            found.append(f"{one.member('chosen').response_id}>{one.member('rejected').response_id}")
    return found


@pytest.fixture
def build() -> Callable[..., Group]:
    """The builder of groups."""
    return build_group


@pytest.fixture
def read() -> Callable[[object], list[str]]:
    """What a rule made, in short."""
    return read_made


@pytest.fixture
def prefers() -> Callable[[Mapping[str, float]], tuple[Judgment, ...]]:
    """Preferences as {"ab": P(a beats b)}."""

    def judged(said: Mapping[str, float | None]) -> tuple[Judgment, ...]:
        return tuple(
            Judgment(judge="rule:test", kind="preference", subjects=tuple(two), values=(value,))
            for two, value in said.items()
        )

    return judged
