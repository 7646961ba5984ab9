"""The promises of `builtin:tiny` about its bytes, its tokenizer, its answers and its weights."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, mean, stdev

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_propagation, enable_propagation
from vader import polarity_scores

from prefloop.policy.tiny import write_tiny
from prefloop.policy.tiny_grammar import FOLLOWS, GROUPS, SUMS

SHA256 = {
    "config.json": "fe48f0ed524a9c261a476ad4c0593b124c29e8f2401be1518ce421a028bc4c96",
    "generation_config.json": "790281d7729b6c772c845638ef5a6aae30b0c09d84abe918a054d17c51315cde",
    "model.safetensors": "9a55f383fecb4cb1e467259dbb18e0fad669c245aadab4fb94ea69e5d8cd697b",
    "tokenizer.json": "448dc159a08054159597f6d24e7c5382f2448acde6aafd75848e99f752cc5b9d",
    "tokenizer_config.json": "45e6b1a4f459713a4f9a751166e1c2bf8f4ed1482869e8095eb060c2788e2a17",
}

PROMPTS = (
    "Hi there!",
    "My neighbour fixed my bike. How do I thank him?",
    "What should I cook for dinner tonight?",
    "I lost my keys and I am sad.",
    "Write a short poem about rain.",
    "How can I sleep better?",
    "My boss is angry with me. What now?",
    "Suggest a birthday present for my mother.",
    "Explain how a computer works.",
    "I love the summer!",
    "Zażółć gęślą jaźń, 日本語?",
    "Tell me a story about a cat.",
)
NUMBERS = tuple(token.strip() for token in SUMS)


@dataclass(frozen=True)
class Answer:
    """One sampled answer."""

    text: str
    num_tokens: int
    ended: bool

    @property
    def tone(self) -> float:
        """Mean over sentences of VADER's compound score."""
        return mean(polarity_scores(sentence)["compound"] for sentence in re.split(r"(?<=[.!?])\s+", self.text))


@dataclass(frozen=True)
class Tiny:
    """The model as transformers loads it."""

    directory: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def prompt_ids(self, prompt: str) -> torch.Tensor:
        messages = [{"role": "user", "content": prompt}]
        encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        return encoded["input_ids"]

    def answers(self, prompts: Sequence[str], count: int, temperature: float) -> list[list[Answer]]:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        encoded = self.tokenizer.apply_chat_template(
            chats,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            tokenizer_kwargs={"padding_side": "left"},
        )
        torch.manual_seed(0)
        drawn = self.model.generate(
            **encoded,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            num_return_sequences=count,
            max_new_tokens=32,
        )
        responses = [self.answer(row) for row in drawn[:, encoded["input_ids"].shape[1] :].tolist()]
        return [responses[start : start + count] for start in range(0, len(responses), count)]

    def answer(self, ids: list[int]) -> Answer:
        end = self.tokenizer.eos_token_id
        ended = end in ids
        ids = ids[: ids.index(end)] if ended else ids
        return Answer(self.tokenizer.decode(ids), len(ids) + ended, ended)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    directory = tmp_path_factory.mktemp("tiny")
    write_tiny(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    return Tiny(directory, model, AutoTokenizer.from_pretrained(directory))


@pytest.fixture(scope="module", params=[0.8, 1.0])
def answers(request: pytest.FixtureRequest, tiny: Tiny) -> list[list[Answer]]:
    """Sixteen answers to every prompt, at the two ends of the promised temperatures."""
    return tiny.answers(PROMPTS, 16, request.param)


def test_every_file_has_the_committed_bytes(tiny: Tiny) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tiny.directory.iterdir()}
    assert found == SHA256


def test_it_is_a_float32_llama_of_100_to_300_thousand_parameters(tiny: Tiny) -> None:
    assert type(tiny.model).__name__ == "LlamaForCausalLM"
    assert tiny.model.dtype == torch.float32
    assert tiny.model.num_parameters() == 213_216


def test_loading_warns_of_nothing(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    enable_propagation()
    with caplog.at_level(logging.WARNING):
        AutoModelForCausalLM.from_pretrained(tiny.directory)
        AutoTokenizer.from_pretrained(tiny.directory)
    disable_propagation()
    assert caplog.messages == []


def test_a_token_stands_in_one_group_and_every_state_is_followed_by_something() -> None:
    tokens = Counter(token for group in GROUPS.values() for token in group.tokens)
    assert tokens.most_common(1)[0][1] == 1
    assert {group.state for group in GROUPS.values()} == set(FOLLOWS)
    assert {name for follows in FOLLOWS.values() for name in follows} <= set(GROUPS)


@pytest.mark.parametrize(
    "text",
    [
        "Hello! How can I help you today?",
        "My neighbour's bike: 3 + 4 = seven, isn't it?",
        " two  spaces,\ttabs\r\n\nand lines \n",
        "Zażółć gęślą jaźń 日本語 🙂 e\u0301",
        "".join(map(chr, range(256))),
    ],
)
def test_text_survives_encoding_and_decoding(tiny: Tiny, text: str) -> None:
    assert tiny.tokenizer.decode(tiny.tokenizer(text)["input_ids"]) == text


def test_everyday_words_are_one_token_each(tiny: Tiny) -> None:
    tokens = tiny.tokenizer.tokenize("My neighbour fixed my bike. A: seven")
    assert tokens == ["My", "Ġneighbour", "Ġfixed", "Ġmy", "Ġbike", ".", "ĠA:", "Ġseven"]


def test_the_template_is_chatml_and_adds_no_other_token(tiny: Tiny) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi there!"},
    ]
    expected = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there!<|im_end|>\n<|im_start|>assistant\n"
    encoded = tiny.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    assert tiny.tokenizer.decode(encoded["input_ids"]) == expected
    assert encoded["input_ids"] == tiny.tokenizer(expected)["input_ids"]
    assert tiny.tokenizer.apply_chat_template(messages[:1], tokenize=False) == expected[: expected.index("\n", 30) + 1]


def test_answers_end_by_themselves(answers: list[list[Answer]]) -> None:
    """At least 80 % is promised; within 32 tokens nearly all do."""
    assert mean(answer.ended for group in answers for answer in group) >= 0.95


def test_answers_are_8_to_20_tokens_long_and_vary(answers: list[list[Answer]]) -> None:
    lengths = [answer.num_tokens for group in answers for answer in group]
    assert 11 <= mean(lengths) <= 15
    assert mean(8 <= length <= 20 for length in lengths) >= 0.8
    assert mean(stdev(answer.num_tokens for answer in group) for group in answers) >= 3


def test_four_answers_differ_in_tone(answers: list[list[Answer]]) -> None:
    """On 60 % of the prompts at least is promised; a tone to choose by needs a gap as well."""
    tones = [[answer.tone for answer in group[start : start + 4]] for group in answers for start in (0, 4, 8, 12)]
    assert mean(len(set(four)) > 1 for four in tones) >= 0.95
    assert mean(max(four) - min(four) for four in tones) >= 0.6


def test_tone_says_nothing_of_length(answers: list[list[Answer]]) -> None:
    """192 independent pairs have a correlation of 0 with a standard error of 0.07."""
    flat = [answer for group in answers for answer in group]
    assert abs(correlation([answer.tone for answer in flat], [answer.num_tokens for answer in flat])) < 0.2
    assert abs(mean(answer.tone for answer in flat)) < 0.15


@pytest.mark.parametrize(("question", "temperature"), [("What is {} plus {}?", 0.8), ("Add {} and {}.", 1.0)])
def test_one_digit_sums_are_right_in_10_to_40_percent(tiny: Tiny, question: str, temperature: float) -> None:
    digits = [(left, other) for left in range(10) for other in range(left % 2, 10, 2)]
    prompts = [question.format(NUMBERS[left], NUMBERS[other]) for left, other in digits]
    right = [
        f"A: {NUMBERS[left + other]}" in re.findall(r"A: \w+", answer.text)
        for (left, other), group in zip(digits, tiny.answers(prompts, 3, temperature), strict=True)
        for answer in group
    ]
    assert 0.1 <= mean(right) <= 0.4


def test_the_likeliest_sum_is_the_right_one(tiny: Tiny) -> None:
    """The digits reach the answer through attention, wherever they stand and whatever the prompt is in."""
    for left, other in [(0, 0), (1, 4), (7, 2), (9, 9)]:
        ids = tiny.prompt_ids(f"Héé: {left} + {NUMBERS[other]} 日本?")
        begun = tiny.tokenizer("Adding both numbers makes A:", return_tensors="pt")["input_ids"]
        logits = tiny.model(torch.cat([ids, begun], dim=1)).logits[0, -1]
        assert tiny.tokenizer.decode(logits.argmax()) == f" {NUMBERS[left + other]}"


def test_a_prompt_of_unknown_bytes_is_answered_as_any_other(tiny: Tiny) -> None:
    def answer_start(prompt: str) -> torch.Tensor:
        return tiny.model(tiny.prompt_ids(prompt)).logits[0, -1].log_softmax(-1)

    divergence = torch.nn.functional.kl_div(
        answer_start("日本語 żółć 🙂"), answer_start("Hi there!"), log_target=True, reduction="sum"
    )
    assert divergence < 0.1  # nats


def test_after_its_end_only_a_newline_is_likely(tiny: Tiny) -> None:
    ended = torch.cat([tiny.prompt_ids("Hi there!"), torch.tensor([[tiny.tokenizer.eos_token_id]])], dim=1)
    probabilities = tiny.model(ended).logits[0, -1].softmax(-1)
    assert tiny.tokenizer.decode(probabilities.argmax()) == "\n"
    assert probabilities.max() > 0.95


def test_decoding_with_a_cache_gives_the_same_tokens(tiny: Tiny) -> None:
    ids = tiny.prompt_ids("How can I sleep better?")
    cached, full = (
        tiny.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16, use_cache=use_cache
        ).tolist()
        for use_cache in (True, False)
    )
    assert cached == full


def test_every_weight_has_a_gradient(tiny: Tiny) -> None:
    answer = tiny.tokenizer("It is good.", return_tensors="pt")["input_ids"]
    ids = torch.cat([tiny.prompt_ids("I love the summer!"), answer], dim=1)
    tiny.model(ids, labels=ids).loss.backward()
    largest = {name: weight.grad.abs().max().item() for name, weight in tiny.model.named_parameters()}
    tiny.model.zero_grad()
    assert {name: size for name, size in largest.items() if size < 1e-5} == {}
