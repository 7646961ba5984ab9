import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from prefloop.config import Precision
from prefloop.policy import packed_weights
from prefloop.sampling import Answer, Draw, LocalSampler, SamplingSettings, draws_for

EOS = 4
ENUMERABLE = 5  # tokens; there are 1 + 4 * (1 + 4 * 5) = 85 answers of at most three
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}

SPREAD = 0.4  # standard deviation of the weights; the usual 0.02 makes all tokens equally likely


def llama(vocab: int = 40) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=SPREAD,
            max_position_embeddings=256,
        )
    )


def gpt2(vocab: int = 40) -> PreTrainedModel:
    """Learned positions: wrong position ids show at once."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab, n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=SPREAD / 2)
    )


def mistral(vocab: int = 40) -> PreTrainedModel:
    """A sliding window that is shorter than prompt and answer."""
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=vocab,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=SPREAD,
            sliding_window=6,
        )
    )


ARCHITECTURES = [llama, gpt2, mistral]


def built(make: Callable[..., PreTrainedModel], dtype: torch.dtype, **sizes: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make(**sizes).to(dtype).eval()


def draws(prompts: Sequence[tuple[int, ...]], num_samples: int) -> list[Draw]:
    return [
        draw
        for number, prompt in enumerate(prompts)
        for draw in draws_for(
            f"p{number}", prompt, num_samples=num_samples, recipe_seed=0, step="s", round_number=0, block=0
        )
    ]


def prompts_of_lengths(*lengths: int, vocab: int = 40) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(2)
    return [tuple(torch.randint(vocab, (length,), generator=generator).tolist()) for length in lengths]


def by_draw(answers: Iterator[Answer]) -> dict[tuple[str, int], Answer]:
    return {(answer.draw.prompt_id, answer.draw.index): answer for answer in answers}


def exact_probabilities(logits: list[float], held: Sequence[int], settings: SamplingSettings) -> list[float]:
    """The sampling distribution of one position, the slow and plain way: token by token."""
    penalty = settings.repetition_penalty
    for token in set(held):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    shares = [math.exp((logit - max(logits)) / settings.temperature) for logit in logits]
    order = sorted(range(len(shares)), key=lambda token: (-shares[token], token))[: settings.top_k]
    reached, kept = 0.0, []
    for token in order:
        if reached < settings.top_p * sum(shares[one] for one in order):
            kept.append(token)
        reached += shares[token]
    kept = [token for token in kept if shares[token] >= settings.min_p * shares[order[0]]]
    total = sum(shares[token] for token in kept)
    return [shares[token] / total if token in kept else 0.0 for token in range(len(shares))]


def exact_sum_logp(model: PreTrainedModel, answer: Answer, settings: SamplingSettings) -> float:
    """One forward pass over prompt and answer, without cache, padding or batch."""
    ids = torch.tensor([answer.draw.prompt_ids + answer.token_ids])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(answer.draw.prompt_ids) - 1 : -1]
    total = 0.0
    for position, token in enumerate(answer.token_ids):
        held = answer.draw.prompt_ids + answer.token_ids[:position]
        probability = exact_probabilities(logits[position].double().tolist(), held, settings)[token]
        total += math.log(probability) if probability else -math.inf
    return total


def answers_that_can_be(max_new_tokens: int) -> list[tuple[int, ...]]:
    words = [token for token in range(ENUMERABLE) if token != EOS]
    ended = [(*start, EOS) for length in range(max_new_tokens) for start in product(words, repeat=length)]
    return ended + list(product(words, repeat=max_new_tokens))


CUT_NOTHING: list[dict[str, float]] = [{}, {"temperature": 0.6}, {"repetition_penalty": 2.5}]
CUT: list[dict[str, float]] = [
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 2.5, "top_p": 0.7},
    {"temperature": 2.0, "top_k": 2},
    {"temperature": 2.0, "min_p": 0.12},
    {"temperature": 1.8, "top_k": 4, "top_p": 0.9, "min_p": 0.15, "repetition_penalty": 1.4},
]
"""Settings by which some tokens have no chance. With layers in bfloat16 it may turn on rounding which, and that depends
on the rows that pass together."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("others", "precision"),
    [(one, "float32") for one in (*CUT_NOTHING, *CUT)] + [(one, "bfloat16") for one in CUT_NOTHING],
)
def test_draws_have_the_exact_probabilities(others: dict[str, float], precision: Precision) -> None:
    """20,000 draws against all 85 answers that can be. 1e-4: one run in 10,000 would fail, and seeds are fixed."""
    model = built(llama, torch.float32, vocab=ENUMERABLE)
    settings = SamplingSettings(**{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 3, **others})
    wanted = draws([(0, 3, 1)], 20_000)

    with packed_weights(model, precision):
        sampler = LocalSampler(model, frozenset({EOS}), rows=5000)
        seen = Counter(answer.token_ids for answer in sampler.sample(wanted, settings))
        exact = {
            ids: math.exp(exact_sum_logp(model, Answer(wanted[0], ids, "stop", 0.0), settings))
            for ids in answers_that_can_be(3)
        }
    assert sum(exact.values()) == pytest.approx(1, abs=1e-6)  # of a float32 model
    assert all(exact[ids] > 0 for ids in seen)
    common = [ids for ids in exact if exact[ids] * len(wanted) >= 5]
    counts = [seen[ids] for ids in common]
    expected = [exact[ids] * len(wanted) for ids in common]
    rest = sum(seen.values()) - sum(counts), len(wanted) - sum(expected)
    if rest[1] > 1:
        counts.append(rest[0])
        expected.append(rest[1])
    scale = sum(counts) / sum(expected)
    assert len(counts) >= 5
    assert chisquare(counts, [scale * value for value in expected]).pvalue > 1e-4


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("make", ARCHITECTURES)
@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(1.0, 1.0, 12),
        SamplingSettings(0.7, 0.9, 12),
        SamplingSettings(1.5, 0.95, 12, top_k=9, min_p=0.1, repetition_penalty=1.3),
    ],
)
def test_sum_logp_is_that_of_a_plain_forward_pass(
    make: Callable[..., PreTrainedModel], dtype: torch.dtype, settings: SamplingSettings
) -> None:
    model = built(make, dtype)
    sampler = LocalSampler(model, frozenset({EOS, 5, 6, 7, 8, 9}), rows=64)
    answers = list(sampler.sample(draws(prompts_of_lengths(2, 9, 5, 1), 6), settings))
    assert len(answers) == 24
    assert len({len(answer.token_ids) for answer in answers}) > 2
    for answer in answers:
        assert answer.sum_logp == pytest.approx(exact_sum_logp(model, answer, settings), abs=TOLERANCE[dtype])


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("make", ARCHITECTURES)
def test_greedy_is_that_of_transformers_token_by_token(make: Callable[..., PreTrainedModel], penalty: float) -> None:
    model = built(make, torch.float32)
    model.generation_config.pad_token_id = 0
    prompts = prompts_of_lengths(3, 11, 1, 6, 6)
    settings = SamplingSettings(temperature=0.0, top_p=1.0, max_new_tokens=20, repetition_penalty=penalty)
    found = by_draw(LocalSampler(model, frozenset({EOS, 9}), rows=8).sample(draws(prompts, 1), settings))
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=[EOS, 9],
            repetition_penalty=penalty,
        )
        assert found[f"p{number}", 0].token_ids == tuple(whole[0, len(prompt) :].tolist())
        assert found[f"p{number}", 0].sum_logp == 0.0


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_rows_order_and_portions_change_no_token(make: Callable[..., PreTrainedModel]) -> None:
    """In float64, where rounding that depends on the batch's shape cannot reach a draw; sums agree to 1e-9."""
    model = built(make, torch.float64)
    wanted = draws(prompts_of_lengths(7, 2, 4, 4, 13), 3)
    settings = SamplingSettings(temperature=0.9, top_p=0.95, max_new_tokens=12)

    def sampled(rows: int, portions: Sequence[Sequence[Draw]]) -> dict[tuple[str, int], Answer]:
        sampler = LocalSampler(model, frozenset({EOS, 5, 6, 7}), rows=rows)
        return {key: a for portion in portions for key, a in by_draw(sampler.sample(portion, settings)).items()}

    expected = sampled(64, [wanted])
    assert {answer.finish_reason for answer in expected.values()} == {"stop", "length"}
    others = [sampled(rows, [wanted]) for rows in (1, 7)]
    others += [
        sampled(64, [wanted[:6], wanted[6:]]),
        sampled(5, [wanted[::-1]]),
        sampled(3, [[draw] for draw in wanted]),
    ]
    for other in others:
        assert other.keys() == expected.keys()
        for key, answer in expected.items():
            assert other[key].token_ids == answer.token_ids
            assert other[key].sum_logp == pytest.approx(answer.sum_logp, abs=1e-9)


def test_the_same_call_gives_the_same_answers_in_the_same_order() -> None:
    model = built(llama, torch.float32)
    wanted = draws(prompts_of_lengths(3, 8), 6)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=10)
    sampler = LocalSampler(model, frozenset({EOS}), rows=8)
    assert list(sampler.sample(wanted, settings)) == list(sampler.sample(wanted, settings))


def test_a_longer_limit_begins_with_the_same_tokens() -> None:
    model = built(llama, torch.float64)
    wanted = draws(prompts_of_lengths(3, 8), 4)
    sampler = LocalSampler(model, frozenset({EOS}))
    short, long = (
        by_draw(sampler.sample(wanted, SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=limit)))
        for limit in (4, 15)
    )
    assert all(long[key].token_ids[:4] == short[key].token_ids for key in short)


def test_an_answer_longer_than_the_spare_columns_goes_on() -> None:
    model = built(gpt2, torch.float64)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=150)
    for answer in LocalSampler(model, frozenset({EOS})).sample(draws(prompts_of_lengths(2, 4), 3), settings):
        assert answer.sum_logp == pytest.approx(exact_sum_logp(model, answer, settings), abs=1e-9)


def test_a_prompt_passes_once_and_ended_answers_leave() -> None:
    """Tokens that go through the model: every prompt once, every sampled token but each answer's last."""
    model = built(llama, torch.float32)
    passed: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _module, ids, _out: passed.append(ids[0].numel()))
    wanted = draws(prompts_of_lengths(6, 6, 6), 8)
    answers = list(
        LocalSampler(model, frozenset({EOS, 5, 6, 7, 8, 9}), rows=24).sample(
            wanted, SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=100)
        )
    )
    sampled = sum(len(answer.token_ids) for answer in answers)
    assert passed[0] == 3 * 6
    assert sum(passed[1:]) == sampled - len(answers)
    assert sum(passed[1:]) < 24 * 100 / 4


@pytest.mark.parametrize("make", ARCHITECTURES)
@pytest.mark.parametrize("lengths", [(3, 9, 5, 1), (4, 4, 4, 4)])
def test_a_beginning_that_prompts_share_changes_nothing(
    make: Callable[..., PreTrainedModel], lengths: tuple[int, ...]
) -> None:
    model = built(make, torch.float64)
    (beginning,) = prompts_of_lengths(30)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=8)
    wanted = draws([beginning + rest for rest in prompts_of_lengths(*lengths)], 3)
    answers = list(LocalSampler(model, frozenset({EOS, 5, 6}), rows=64).sample(wanted, settings))
    assert len(answers) == 12
    for answer in answers:
        assert answer.sum_logp == pytest.approx(exact_sum_logp(model, answer, settings), abs=1e-9)


def test_a_beginning_that_prompts_share_passes_once() -> None:
    model = built(llama, torch.float32)
    passed: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_hook(lambda _module, ids, _out: passed.append(tuple(ids[0].shape)))
    (beginning,) = prompts_of_lengths(30)
    prompts = [beginning, *((*beginning, token) for token in (1, 2)), (*beginning, 3, 4)]
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=1)
    list(LocalSampler(model, frozenset({EOS})).sample(draws(prompts, 2), settings))
    assert passed == [(1, 34)]


def test_answers_come_as_they_end() -> None:
    model = built(llama, torch.float32)
    sampler = LocalSampler(model, frozenset({EOS, 5, 6, 7}), rows=32)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=30)
    lengths = [len(answer.token_ids) for answer in sampler.sample(draws(prompts_of_lengths(3), 20), settings)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_an_answer_can_end_at_its_first_token() -> None:
    model = built(llama, torch.float32)
    every = frozenset(range(40))
    answers = LocalSampler(model, every).sample(
        draws(prompts_of_lengths(3, 5), 3), SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=9)
    )
    assert {(len(answer.token_ids), answer.finish_reason) for answer in answers} == {(1, "stop")}


def test_one_new_token_is_a_limit_too() -> None:
    model = built(llama, torch.float32)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=1)
    wanted = draws(prompts_of_lengths(3, 5), 40)
    for answer in LocalSampler(model, frozenset(range(20))).sample(wanted, settings):
        assert len(answer.token_ids) == 1
        assert answer.finish_reason == ("stop" if answer.token_ids[0] < 20 else "length")


def test_a_given_beginning_is_part_of_the_prompt_and_not_of_the_answer() -> None:
    model = built(gpt2, torch.float64)
    settings = SamplingSettings(temperature=0.0, top_p=1.0, max_new_tokens=8)
    sampler = LocalSampler(model, frozenset())
    (prompt,) = prompts_of_lengths(4)
    (whole,) = sampler.sample(draws([prompt], 1), settings)
    (rest,) = sampler.sample(draws([prompt + whole.token_ids[:3]], 1), settings)
    assert rest.token_ids[:5] == whole.token_ids[3:]


def letters(token_ids: Sequence[int]) -> str:
    """Token 0 is a, 1 is b, and so on; the last ones of 40 are halves of an umlaut, nothing without each other."""
    pieces = [bytes([97 + token]) if token < 26 else (b"\xc3" if token < 33 else b"\xa4") for token in token_ids]
    return b"".join(pieces).decode(errors="replace")


def test_a_stop_text_ends_an_answer_with_the_token_that_completes_it() -> None:
    model = built(llama, torch.float64)
    wanted = draws(prompts_of_lengths(3, 7), 40)
    plain = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=30)
    stops = ("ab", "h", "ä")
    sampler = LocalSampler(model, frozenset({EOS}), rows=50, text_of=letters)
    whole = by_draw(sampler.sample(wanted, plain))
    stopped = by_draw(sampler.sample(wanted, replace(plain, stop=stops)))

    def expected(answer: Answer) -> tuple[int, ...]:
        for end in range(1, len(answer.token_ids) + 1):
            if any(stop in letters(answer.token_ids[:end]) for stop in stops):
                return answer.token_ids[:end]
        return answer.token_ids

    assert {key: answer.token_ids for key, answer in stopped.items()} == {key: expected(a) for key, a in whole.items()}
    ends = [stop for stop in stops for answer in stopped.values() if letters(answer.token_ids).endswith(stop)]
    assert {"h", "ä"} <= set(ends)
    assert all(
        answer.finish_reason == "stop" for answer in stopped.values() if letters(answer.token_ids).endswith(stops)
    )


def test_a_stop_id_ends_an_answer_as_eos_does() -> None:
    model = built(llama, torch.float64)
    wanted = draws(prompts_of_lengths(3, 7), 20)
    plain = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=30)
    told = by_draw(LocalSampler(model, frozenset({EOS})).sample(wanted, replace(plain, stop_ids=(5, 6))))
    assert told == by_draw(LocalSampler(model, frozenset({EOS, 5, 6})).sample(wanted, plain))
    assert {answer.token_ids[-1] for answer in told.values() if answer.finish_reason == "stop"} > {5, 6}


def test_different_beginnings_of_one_prompt_are_kept_apart() -> None:
    model = built(llama, torch.float64)
    settings = SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=5)
    first, second = (Draw("p", index, 11, ids) for index, ids in enumerate(prompts_of_lengths(4, 6)))
    sampler = LocalSampler(model, frozenset({EOS}))
    alone = [answer for draw in (first, second) for answer in sampler.sample([draw], settings)]
    together = sorted(sampler.sample([first, second], settings), key=lambda answer: answer.draw.index)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]


def test_nothing_global_is_touched() -> None:
    model = built(llama, torch.float32)
    sampler = LocalSampler(model, frozenset({EOS}))
    before = torch.get_rng_state()
    answers = sampler.sample(
        draws(prompts_of_lengths(3), 4), SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=5)
    )
    next(answers)
    assert not torch.is_inference_mode_enabled()
    assert len(list(answers)) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_no_draws_give_no_answers() -> None:
    sampler = LocalSampler(built(llama, torch.float32), frozenset({EOS}))
    assert list(sampler.sample([], SamplingSettings(temperature=1.0, top_p=1.0, max_new_tokens=5))) == []
