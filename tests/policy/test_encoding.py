"""Examples as token rows, over the tokenizers and templates of model families."""

from collections.abc import Mapping
from typing import Any

import pytest

from prefloop.data.given import given_response
from prefloop.policy import ChatCodec, Encoded, EncodingSettings, encoded
from prefloop.records import Example, Member, Message, Prompt

Family = Any
"""One of the tokenizers of the conftest, with what both it and its template make of a conversation."""
QUESTION = (Message(role="user", content="How are you?"),)
ANSWERS = ("Hello!", "I am well.", " Indented", "a\n\nb", "Café 🙂", "\n\nlate", "a <|im_end|> b </s>")
UNCUT = EncodingSettings(max_length=10_000)


def example(*texts: str, messages: tuple[Message, ...] = QUESTION, **changed: object) -> Example:
    """A pair of answers, or more."""
    members = tuple(
        Member.model_validate({"role": "chosen", "response_id": str(number), "text": text, **changed})
        for number, text in enumerate(texts)
    )
    return Example(example_id="e", prompt=Prompt.of(messages), members=members, why="test")


def made(codec: ChatCodec, settings: EncodingSettings, *texts: str, **changed: object) -> Encoded:
    (one,) = encoded([example(*texts, **changed)], codec, settings)  # pyright: ignore[reportArgumentType]
    return one


def shown(codec: ChatCodec, ids: tuple[int, ...]) -> str:
    """Ids as text with control tokens; without the space that a decoder takes off or puts on at the beginning."""
    return codec.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def test_bos_stands_once_where_the_template_writes_it_and_nowhere_else(family: Family, codec: ChatCodec) -> None:
    row = made(codec, UNCUT, "Hello!").rows[0]
    ids = row.prompt_ids + row.answer_ids
    if family.bos is None:
        return
    bos = codec.tokenizer.convert_tokens_to_ids(family.bos)
    assert codec.tokenizer("a")["input_ids"][0] == bos  # the tokenizer would add it as well
    assert (ids[0], ids.count(bos)) == (bos, 1)


def test_prompts_are_what_the_template_renders_with_the_generation_prompt(codec: ChatCodec) -> None:
    rendered = codec.tokenizer.apply_chat_template(
        [{"role": "user", "content": "How are you?"}], add_generation_prompt=True, return_dict=False
    )
    assert made(codec, UNCUT, "Hello!").rows[0].prompt_ids == tuple(rendered)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_what_it_says_after_what_the_template_leads_with(
    family: Family, codec: ChatCodec, text: str
) -> None:
    """No space comes before it that nobody wrote, none is lost, and nothing spelt out becomes a control token."""
    row = made(codec, UNCUT, text).rows[0]
    prompt, whole = shown(codec, row.prompt_ids), shown(codec, row.prompt_ids + row.answer_ids)
    assert whole == prompt + family.lead + text + family.closing
    assert codec.said(row.answer_ids).text == text.lstrip("\n" if family.lead.strip() else "")


@pytest.mark.parametrize("text", ANSWERS)
def test_no_token_of_an_answer_begins_in_the_prompt(codec: ChatCodec, text: str) -> None:
    (one,) = encoded([example(text, "another")], codec, UNCUT)
    assert one.rows[0].prompt_ids == one.rows[1].prompt_ids == codec.prompt_ids(one.example.prompt)


def test_what_the_template_leads_with_does_not_count_and_the_answer_does(family: Family, codec: ChatCodec) -> None:
    row = made(codec, UNCUT, "Hello!").rows[0]
    counted = tuple(token for token, counts in zip(row.answer_ids, row.counted, strict=True) if counts)
    assert codec.text_of(counted) == "Hello!"
    assert counted[-1] == codec.eos_id
    assert all(row.counted) == (not family.lead.strip())


def test_a_finished_answer_ends_with_the_eos_of_the_template_and_a_cut_one_with_none(
    family: Family, codec: ChatCodec
) -> None:
    closing = codec.tokenizer.convert_tokens_to_ids(family.closing)
    finished = made(codec, UNCUT, "Hello!").rows[0].answer_ids
    cut = made(codec, UNCUT, "Hello!", finished=False).rows[0].answer_ids
    assert finished == (*cut, closing)
    assert codec.eos_ids.isdisjoint(cut)
    assert closing in codec.eos_ids


def test_a_template_that_changes_its_prompt_once_an_answer_follows_is_counted(family: Family, codec: ChatCodec) -> None:
    assert made(codec, UNCUT, "Hello!").warned == (() if family.stable else ("not_a_prefix",))


def test_a_merge_over_the_end_of_the_prompt_is_counted(codecs: Mapping[str, ChatCodec]) -> None:
    """The line break after `assistant` and the I would be one token."""
    one = made(codecs["chatml"], UNCUT, "I am well.")
    assert one.warned == ("not_a_prefix",)
    assert shown(codecs["chatml"], one.rows[0].answer_ids) == "I am well.<|im_end|>"


def test_a_system_turn_that_a_template_refuses_leaves_the_example_out(family: Family, codec: ChatCodec) -> None:
    messages = (Message(role="system", content="Be brief."), *QUESTION)
    one = made(codec, UNCUT, "Hello!", "Hi!", messages=messages)
    assert one.left_out == (None if family.system else "template_refuses")


# Too long.


def test_the_longest_row_may_have_as_many_tokens_as_the_limit(codec: ChatCodec) -> None:
    longest = max(len(row) for row in made(codec, UNCUT, "Hello!", "Hello, my friend!").rows)
    assert made(codec, EncodingSettings(longest), "Hello!", "Hello, my friend!").left_out is None
    assert made(codec, EncodingSettings(longest - 1), "Hello!", "Hello, my friend!").left_out == "too_long"


def test_a_cut_answer_keeps_its_beginning_and_loses_its_eos(codec: ChatCodec) -> None:
    whole = made(codec, UNCUT, "Hello!", "Hello, my friend!").rows
    limit = len(whole[1]) - 1
    one = made(codec, EncodingSettings(limit, "cut_response"), "Hello!", "Hello, my friend!")
    assert [row.answer_ids for row in one.rows] == [whole[0].answer_ids, whole[1].answer_ids[:-1]]
    assert one.rows[0].prompt_ids == whole[0].prompt_ids
    assert codec.eos_ids.isdisjoint(one.rows[1].answer_ids)
    assert "cut" in one.warned


def test_answers_that_are_the_same_after_cutting_leave_the_example_out(family: Family, codec: ChatCodec) -> None:
    template = sum(not counted for counted in made(codec, UNCUT, "x").rows[0].counted)
    limit = len(codec.prompt_ids(Prompt.of(QUESTION))) + template + 3
    one = made(codec, EncodingSettings(limit, "cut_response"), "aaaab", "aaaac")
    assert (one.left_out, one.rows) == ("identical_cut", ())
    assert made(codec, EncodingSettings(limit, "cut_response"), "baaaa", "caaaa").left_out is None
    del family


def test_where_the_prompt_fills_the_limit_no_answer_is_left(family: Family, codec: ChatCodec) -> None:
    prompt = len(codec.prompt_ids(Prompt.of(QUESTION)))
    assert made(codec, EncodingSettings(prompt, "cut_response"), "a", "b").left_out == "prompt_too_long"
    if family.lead.strip():  # only what the template leads with would be left
        assert made(codec, EncodingSettings(prompt + 1, "cut_response"), "a", "b").left_out == "nothing_left"


def turns(family: Family) -> tuple[Message, ...]:
    system = (Message(role="system", content="Be brief."),) if family.system else ()
    spoken = [("user", "First question"), ("assistant", "First answer"), ("user", "Second question, much longer.")]
    return (*system, *(Message.model_validate({"role": role, "content": content}) for role, content in spoken))


def test_a_prompt_that_is_too_long_loses_its_oldest_turns_and_keeps_its_system_turn(
    family: Family, codec: ChatCodec
) -> None:
    messages = turns(family)
    whole = made(codec, UNCUT, "Hello!", "Hi!", messages=messages).rows
    limit = max(len(row) for row in whole) - 1
    one = made(codec, EncodingSettings(limit, "cut_prompt_left"), "Hello!", "Hi!", messages=messages)
    left = (*messages[:-3], messages[-1])
    assert one.rows[0].prompt_ids == codec.prompt_ids(Prompt.of(left))
    assert [row.answer_ids for row in one.rows] == [row.answer_ids for row in whole]
    assert "cut" in one.warned


def test_a_question_that_is_too_long_loses_its_oldest_tokens_and_nothing_that_the_template_writes(
    family: Family, codec: ChatCodec
) -> None:
    messages = turns(family)
    left = Prompt.of((*messages[:-3], messages[-1]))
    answers = made(codec, UNCUT, "Hello!", "Hi!", messages=messages).rows
    limit = len(codec.prompt_ids(left)) + max(len(row.answer_ids) for row in answers) - 5
    one = made(codec, EncodingSettings(limit, "cut_prompt_left"), "Hello!", "Hi!", messages=messages)
    whole, cut = shown(codec, codec.prompt_ids(left)), shown(codec, one.rows[0].prompt_ids)
    assert max(len(row) for row in one.rows) == limit
    header, closing = whole.split("Second question, much longer.")
    assert cut.startswith(header.rstrip(" "))
    assert cut.endswith(" much longer." + closing)


def test_what_no_cut_of_the_prompt_can_fit_is_left_out(codec: ChatCodec) -> None:
    """Of the question one token has to stay; it begins with a letter that merges with nothing before it."""
    question = (Message(role="user", content="Where?"),)
    rows = made(codec, UNCUT, "Hello!", "Hi!", messages=question).rows
    header = len(codec.prompt_ids(Prompt.of((Message(role="user", content="x"),)))) - 1
    longest = max(len(row.answer_ids) for row in rows)
    fits = EncodingSettings(header + longest + 1, "cut_prompt_left")
    assert made(codec, fits, "Hello!", "Hi!", messages=question).left_out is None
    one_less = EncodingSettings(header + longest, "cut_prompt_left")
    assert made(codec, one_less, "Hello!", "Hi!", messages=question).left_out == "too_long"


# Several turns.

TALK = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Sum?"),
    Message(role="assistant", content="Adding."),
    Message(role="tool", content="42"),
    Message(role="user", content="So?"),
)
WRITTEN = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSum?<|im_end|>\n<|im_start|>assistant\nAdding."
    "<|im_end|>\n<|im_start|>tool\n42<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n"
)


def marked(codec: ChatCodec, one: Encoded) -> str:
    """The text of the first row's counted tokens, parted by a bar where others lie between."""
    row = one.rows[0]
    parts: list[tuple[int, ...]] = [()]
    for token, counts in zip(row.answer_ids, row.counted, strict=True):
        parts = [*parts[:-1], (*parts[-1], token)] if counts else [*parts, ()]
    return "|".join(shown(codec, part) for part in parts if part)


def test_system_and_tool_turns_stay_and_only_the_answer_counts(codecs: Mapping[str, ChatCodec]) -> None:
    codec = codecs["chatml"]
    one = made(codec, UNCUT, "It is 42.", messages=TALK)
    assert shown(codec, one.rows[0].prompt_ids) == WRITTEN
    assert marked(codec, one) == "It is 42.<|im_end|>"


def test_all_turns_of_the_assistant_count_with_their_eos_where_a_recipe_says_so(
    codecs: Mapping[str, ChatCodec],
) -> None:
    codec = codecs["chatml"]
    one = made(codec, EncodingSettings(10_000, loss_on="all_turns"), "It is 42.", messages=TALK)
    row = one.rows[0]
    assert shown(codec, row.prompt_ids + row.answer_ids) == WRITTEN + "It is 42.<|im_end|>"
    assert marked(codec, one) == "Adding.<|im_end|>|It is 42.<|im_end|>"


def test_marks_stay_with_their_tokens_when_earlier_turns_count(codecs: Mapping[str, ChatCodec]) -> None:
    codec = codecs["chatml"]
    settings = EncodingSettings(10_000, loss_on="all_turns")
    one = made(codec, settings, "abc", messages=TALK, marked=((1, 2),))
    (position,) = [number for number, mark in enumerate(one.marked[0]) if mark]
    assert shown(codec, (one.rows[0].answer_ids[position],)) == "b"


@pytest.mark.parametrize("name", ["llama 3", "gemma", "qwen 3", "mistral"])
def test_earlier_turns_are_found_in_other_templates(
    codecs: Mapping[str, ChatCodec], families: Mapping[str, Family], name: str
) -> None:
    codec, closing = codecs[name], families[name].closing
    messages = (*QUESTION, *turns(families[name])[-2:])
    one = made(codec, EncodingSettings(10_000, loss_on="all_turns"), "Yes.", messages=messages)
    assert marked(codec, one).replace(" ", "") == f"Firstanswer{closing}|Yes.{closing}"


# Thinking.


@pytest.mark.parametrize("name", ["qwen 3", "deepseek r1"])
def test_a_thinking_part_is_written_as_the_model_writes_it_and_counts(
    codecs: Mapping[str, ChatCodec], families: Mapping[str, Family], name: str
) -> None:
    codec = codecs[name]
    row = made(codec, UNCUT, "Hello!", thinking="Be kind.").rows[0]
    begin = "" if name == "deepseek r1" else "<think>\n"
    assert shown(codec, row.answer_ids) == f"{begin}Be kind.\n</think>\n\nHello!{families[name].closing}"
    assert all(row.counted)
    said = codec.said(row.answer_ids)
    assert (said.text, said.thinking, said.is_cut) == ("Hello!", "Be kind.", False)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_thinking_part_does_not_count_where_a_recipe_says_so(codecs: Mapping[str, ChatCodec], sampled: bool) -> None:
    codec = codecs["qwen 3"]
    ids = made(codec, UNCUT, "Hello!", thinking="Be kind.").rows[0].answer_ids
    tokens = {"token_ids": ids} if sampled else {}
    one = made(codec, EncodingSettings(10_000, loss_on_thinking=False), "Hello!", thinking="Be kind.", **tokens)
    assert one.rows[0].answer_ids == ids
    assert marked(codec, one) == "\n\nHello!<|im_end|>"


@pytest.mark.parametrize("name", ["qwen 3", "deepseek r1"])
def test_an_answer_that_ends_while_it_thinks_is_cut_even_with_an_eos(
    codecs: Mapping[str, ChatCodec], name: str
) -> None:
    codec = codecs[name]
    ids = made(codec, UNCUT, "Hello!", thinking="Be kind.").rows[0].answer_ids
    begun = (*ids[: codec.num_thinking(ids) - 2], codec.eos_id)
    said = codec.said(begun)
    assert (said.text, said.is_cut, said.num_thinking) == ("", True, len(begun))
    assert said.thinking.startswith("Be kin")
    row = made(codec, UNCUT, "", token_ids=begun, finished=False).rows[0]
    assert row.answer_ids == begun[:-1]


def test_a_model_that_has_no_thinking_tokens_gets_the_thinking_part_as_text(codecs: Mapping[str, ChatCodec]) -> None:
    row = made(codecs["chatml"], UNCUT, "Hello!", thinking="Be kind.").rows[0]
    assert shown(codecs["chatml"], row.answer_ids) == "<think>\nBe kind.\n</think>\n\nHello!<|im_end|>"


def test_a_given_answer_keeps_its_thinking_part_apart() -> None:
    prompt = Prompt.of(QUESTION)
    response = given_response(prompt, "<think>\nBe kind.\n</think>\n\nHello!")
    assert (response.thinking, response.text, response.finish_reason) == ("Be kind.", "Hello!", "given")
    cut = given_response(prompt, "<think>\nBe kin")
    assert (cut.thinking, cut.text, cut.finish_reason) == ("Be kin", "", "length")
    assert given_response(prompt, "I <think> so.").text == "I <think> so."
