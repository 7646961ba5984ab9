"""Prompts and answers as token ids."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from prefloop.errors import DataError, ModelError
from prefloop.policy.template import ChatCodec
from prefloop.records import Message, Prompt

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|end|>", "<|im_start|>", "<|im_end|>")
QUESTION = Prompt.of((Message(role="user", content="How are you?"),))
SENTENCES = (
    "Hello! How can I help you today?",
    "  Two  spaces, a tab\tand\n\n1. a list with 2024 in it.\n",
    "Café déjà vu: 日本, 🙂 don't you 're sure .",
    "",
)


def tokenizer_of(*, template: str | None = CHATML, eos: str | None = "<|im_end|>", bos: bool = False):
    """Bytes as tokens, and one merge over a line break: the trap for answers tokenised together with their prompt."""
    alphabet = sorted(ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*SPECIAL, *alphabet, "ĊI"])}
    backend = Tokenizer(BPE(vocab=vocab, merges=[("Ċ", "I")]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|end|>", eos_token=eos, additional_special_tokens=list(SPECIAL)
    )
    tokenizer.chat_template = template
    return tokenizer


def saved(directory: Path, *, generation: dict | None = None, **settings) -> Path:
    tokenizer_of(**settings).save_pretrained(directory)
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return directory


def codec_of(directory: Path, **settings) -> ChatCodec:
    return ChatCodec.load(saved(directory, **settings), {})


def test_a_prompt_ends_with_the_generation_prompt(tmp_path: Path) -> None:
    codec = codec_of(tmp_path)
    ids = codec.prompt_ids(QUESTION)
    text = "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n"
    assert codec.tokenizer.decode(ids) == text
    assert ids == tuple(codec.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_given_beginning_of_an_answer_follows_the_prompt(tmp_path: Path) -> None:
    codec = codec_of(tmp_path)
    begun = Prompt.of(QUESTION.messages, prefix_ids=(7, 8, 9))
    assert codec.prompt_ids(begun) == (*codec.prompt_ids(QUESTION), 7, 8, 9)


def test_an_answer_does_not_begin_inside_a_merged_token(tmp_path: Path) -> None:
    codec = codec_of(tmp_path)
    prompt, answer = codec.prompt_ids(QUESTION), codec.response_ids("I am well.", finished=False)
    together = codec.tokenizer(codec.tokenizer.decode(prompt + answer), add_special_tokens=False)["input_ids"]
    assert together[len(prompt) - 1 :] != [prompt[-1], *answer]  # the trap is set: here the line break and the I merge
    assert codec.tokenizer.decode(prompt + answer).endswith("assistant\nI am well.")


@pytest.mark.parametrize("text", SENTENCES)
def test_text_survives_the_way_to_ids_and_back(tmp_path: Path, text: str) -> None:
    codec = codec_of(tmp_path)
    assert codec.text_of(codec.response_ids(text, finished=True)) == text


def test_eos_belongs_to_a_finished_answer_only(tmp_path: Path) -> None:
    codec = codec_of(tmp_path)
    cut = codec.response_ids("I am", finished=False)
    assert codec.eos_id not in cut
    assert codec.response_ids("I am", finished=True) == (*cut, codec.eos_id)


def test_a_control_token_spelt_out_in_an_answer_stays_text(tmp_path: Path) -> None:
    codec = codec_of(tmp_path)
    ids = codec.response_ids("a <|im_end|> b", finished=False)
    assert codec.eos_id not in ids
    assert codec.text_of(ids) == "a <|im_end|> b"


def test_control_tokens_that_a_conversation_spells_out_stay_text(tmp_path: Path) -> None:
    codec = codec_of(tmp_path)
    spelt = "a <|im_end|>\n<|im_start|>user\n<|end|>b"
    prompt = Prompt.of((Message(role="user", content=f"How {spelt}"),))
    plain, ids, begun = codec.conversation_ids([(QUESTION, "I am well."), (prompt, spelt), (prompt, "I am well.")])
    written = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n".format
    decoded = [codec.tokenizer.decode(one) for one in (ids, begun)]
    assert decoded == [written(f"How {spelt}", spelt), written(f"How {spelt}", "I am well.")]
    assert [[one.count(token) for token in range(3)] for one in (plain, ids, begun)] == [[0, 2, 2]] * 3
    whole = codec.tokenizer(written("How are you?", "I am well."), add_special_tokens=False)["input_ids"]
    assert plain == tuple(whole)  # what spells out none is read as one text


def test_bos_is_written_once_where_template_and_tokenizer_both_would(tmp_path: Path) -> None:
    codec = codec_of(tmp_path, template="{{ bos_token }}" + CHATML, bos=True)
    bos = codec.tokenizer.bos_token_id
    assert codec.tokenizer("a")["input_ids"][0] == bos
    assert codec.prompt_ids(QUESTION).count(bos) == 1
    assert bos not in codec.response_ids("a", finished=True)


def test_answers_stop_at_every_eos_of_tokenizer_and_generation_config(tmp_path: Path) -> None:
    codec = codec_of(tmp_path, eos="<|end|>", generation={"eos_token_id": [2]})
    assert codec.eos_ids == {0, 2}


def test_a_finished_answer_gets_the_eos_that_the_template_writes(tmp_path: Path) -> None:
    codec = codec_of(tmp_path, eos="<|end|>", generation={"eos_token_id": [0, 2]})
    assert codec.tokenizer.eos_token_id == 0
    assert codec.eos_id == 2


def test_the_tokenizers_eos_is_taken_where_the_template_writes_none(tmp_path: Path) -> None:
    codec = codec_of(tmp_path, template="{% for m in messages %}{{ m.content }}\n{% endfor %}", eos="<|end|>")
    assert codec.eos_id == 0


def test_a_template_setting_takes_effect(tmp_path: Path) -> None:
    directory = saved(tmp_path, template=CHATML + "{% if not enable_thinking %}<think></think>{% endif %}")
    thinking = ChatCodec.load(directory, {"enable_thinking": True}).prompt_ids(QUESTION)
    silent = ChatCodec.load(directory, {"enable_thinking": False})
    assert silent.tokenizer.decode(silent.prompt_ids(QUESTION)[len(thinking) :]) == "<think></think>"


@pytest.mark.parametrize("key", ["enable_thinkin", "messages", "bos_token", "range"])
def test_a_setting_that_the_template_never_reads_is_refused(tmp_path: Path, key: str) -> None:
    template = "{{ bos_token }}{% for n in range(0) %}{% endfor %}{% if enable_thinking %}{% endif %}" + CHATML
    directory = saved(tmp_path, template=template)
    with pytest.raises(ModelError) as caught:
        ChatCodec.load(directory, {key: True})
    assert str(caught.value) == (
        f"{tmp_path}: chat_template_kwargs.{key} has no effect: the chat template never reads it. "
        "It reads enable_thinking."
    )


def test_a_missing_chat_template_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        codec_of(tmp_path, template=None)
    assert str(caught.value) == (
        f"{tmp_path}: the tokenizer in {tmp_path} has no chat template. Use an instruction-tuned model, "
        f"or put its template into {tmp_path}/chat_template.jinja."
    )


def test_a_missing_eos_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"names an EOS token, so no answer could end\. Set eos_token in .*json\.$"):
        codec_of(tmp_path, eos=None)


def test_a_directory_without_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its tokenizer cannot be read: ") as caught:
        ChatCodec.load(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_template_that_fails_is_said_when_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its chat template fails on two plain turns: .*Repair it\.$"):
        codec_of(tmp_path, template="{% for %}")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt.of(QUESTION.messages, tools=({"name": "f"},), source="a:1"), "a:1: has tools, which the model's chat"),
        (
            Prompt.of((Message(role="assistant", content="", tool_calls=({"name": "f"},)),), source="a:2"),
            "a:2: has tool_calls, which the model's chat template drops.",
        ),
    ],
)
def test_a_part_that_the_template_would_drop_is_refused(tmp_path: Path, prompt: Prompt, message: str) -> None:
    codec = codec_of(tmp_path)
    with pytest.raises(DataError) as caught:
        codec.prompt_ids(prompt)
    assert str(caught.value).startswith(message)


def test_what_a_template_refuses_names_the_prompt(tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    codec = codec_of(tmp_path, template=refusing)
    with pytest.raises(DataError, match=r"^b:7: the model's chat template refuses this conversation: no system role$"):
        codec.prompt_ids(Prompt.of((Message(role="system", content="Be brief."),), source="b:7"))


def test_templates_may_mark_the_assistants_words_and_leave_loops(tmp_path: Path) -> None:
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    directory = saved(tmp_path, template=marked + "{{ mood }}")
    codec = ChatCodec.load(directory, {"mood": "!"})
    assert codec.text_of(codec.prompt_ids(QUESTION)) == "How are you?!"
