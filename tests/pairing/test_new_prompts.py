"""Prompts that a policy writes: what it is asked, and what of its answers becomes a prompt."""

from prefloop.pairing import prompt_writing, written_prompts
from prefloop.pairing.registry import Dropped
from prefloop.records import Group, Message, Prompt, Response

SEED = Prompt.of(
    tuple(
        Message(role=role, content=text)
        for role, text in (("system", "Be kind."), ("user", "Hi!"), ("assistant", "Hello!"), ("user", "How are\nyou?"))
    ),
    source="mine.jsonl:3",
)


def request() -> Prompt:
    (made,) = prompt_writing(Group((SEED,)), examples=("I lost a shoe.", "It rains."), instruction="Things said:")
    assert isinstance(made, Prompt)
    return made


def written(*texts: str, cut: bool = False, like_others: bool = True) -> list[str]:
    asked = request()
    answers = tuple(
        Response(
            response_id=f"r{number}", prompt_id=asked.prompt_id, root_id=SEED.root_id, step="written", text=text,
            ids_from="text", finish_reason="length" if cut else "stop",
        )
        for number, text in enumerate(texts)
    )  # fmt: skip
    found = list(written_prompts(Group((SEED, asked), answers), like_others=like_others))
    assert all(len(one.messages) == (4 if like_others else 1) for one in found if isinstance(one, Prompt))
    return [one.reason if isinstance(one, Dropped) else one.messages[-1].content for one in found]


def test_the_request_ends_where_the_next_prompt_begins() -> None:
    made = request()
    assert made.root_id == SEED.root_id
    assert [(one.role, one.content) for one in made.messages] == [
        ("user", "Things said:\n1. I lost a shoe.\n2. It rains.\n3. How are you?\n4.")
    ]


def test_the_first_line_of_an_answer_is_a_prompt_of_its_own_without_its_number() -> None:
    assert written("\n 4) My cat ran away.\n5. And another.", "- Nobody called today.") == [
        "My cat ran away.", "Nobody called today.",
    ]  # fmt: skip
    assert written("My cat ran away.", like_others=False) == ["My cat ran away."]


def test_what_is_short_old_twice_or_cut_is_no_prompt() -> None:
    assert written("", "Oh no", "I lost a shoe.", "how ARE you?", "A b c d", "a B c D") == [
        "too short", "too short", "nothing new", "nothing new", "A b c d", "nothing new",
    ]  # fmt: skip
    assert written("My cat ran away.", cut=True) == ["not finished"]


def test_a_conversation_without_a_question_is_no_example() -> None:
    (none,) = prompt_writing(Group((Prompt.of((Message(role="system", content="x"),)),)), examples=("a",))
    assert isinstance(none, Dropped)
