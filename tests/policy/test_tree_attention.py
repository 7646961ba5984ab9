"""FlexAttention, segments and a dense mask: three ways to attend along the paths of a forest, and one rule."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as flex

from prefloop.policy import tree_attention
from prefloop.policy.tree_attention import _AlongPaths, _attend, _by_blocks, _Passing, _Rule
from prefloop.policy.trees import Forest

HEADS, WIDTH = 4, 16
EXACT = 1e-13
"""Float64: sums in another order differ in the last bits only."""


def ids(seed: int, length: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 40, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def forest(answer: int) -> Forest:
    """Two prompts under one system turn, the first with three answers of which two begin alike, and a row alone."""
    system, question, begun = ids(1, 20), ids(2, 18), ids(3, 17)
    return Forest.of(
        [
            (*system, *question, *begun, *ids(4, 6)),
            (*system, *question, *begun, *ids(5, answer)),
            (*system, *question, *ids(6, 9)),
            (*system, *ids(7, 25)),
            ids(8, 5),
        ]
    )


@dataclass(frozen=True)
class Layer:
    """What a model's layer asks of its attention."""

    kv_heads: int = HEADS
    window: int | None = None
    softcap: float | None = None
    scaling: float | None = None


LAYERS = {
    "full": Layer(),
    "scaled": Layer(scaling=0.4),
    "grouped heads": Layer(kv_heads=2),
    "one head of keys": Layer(kv_heads=1),
    "window": Layer(window=9),
    "window of one": Layer(window=1),
    "window, grouped, capped": Layer(kv_heads=2, window=21, softcap=0.7, scaling=0.4),
    "soft-capped": Layer(softcap=0.7),
}
SIZES = {80 - 25: 155, 156: 256, 157: 257, 200: 300}
"""Tokens of the longest answer, and those of the forest: inside two blocks, as many as fill them, one more, and odd."""


def states(layer: Layer, tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    numbers = torch.Generator().manual_seed(0)
    shapes = [(1, heads, tokens, WIDTH) for heads in (HEADS, layer.kv_heads, layer.kv_heads)]
    return [torch.randn(shape, generator=numbers, dtype=torch.float64).to(dtype) for shape in shapes]


def rule(layer: Layer, of: Forest, device: str = "cpu") -> _Rule:
    return _Rule(_Passing(of, torch.device(device)), layer.scaling, layer.window, layer.softcap)


def dense(query: Tensor, key: Tensor, value: Tensor, layer: Layer, of: Forest) -> Tensor:
    """Each row alone, from the definition: a softmax over the tokens before it in its row, or in the window."""
    out = torch.full_like(query, torch.nan)
    groups = HEADS // layer.kv_heads
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    for row in range(len(of.paths)):
        places = of.places(row)
        scores = query[:, :, places] @ key[:, :, places].transpose(2, 3)
        scores = scores * (WIDTH**-0.5 if layer.scaling is None else layer.scaling)
        scores = scores if layer.softcap is None else layer.softcap * torch.tanh(scores / layer.softcap)
        seen = torch.ones(len(places), len(places), dtype=torch.bool).tril()
        seen = seen if layer.window is None else seen.triu(1 - layer.window)
        out[:, :, places] = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value[:, :, places]
    return out


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as it is written, in any precision; on CPU going backward too, which its kernels cannot."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(tree_attention, "compiled_flex_attention", lambda: flex.flex_attention)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("answer", SIZES)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_blocks_and_segments_attend_as_every_row_alone(layer: Layer, answer: int) -> None:
    of = forest(answer)
    assert len(of) == SIZES[answer]
    given = states(layer, len(of))
    expected = dense(*given, layer, of)
    assert not expected.isnan().any()
    torch.testing.assert_close(_AlongPaths.apply(*given, rule(layer, of)), expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(_by_blocks(*given, rule(layer, of)), expected, rtol=0, atol=EXACT)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_their_gradients_too(layer: Layer) -> None:
    of = forest(157)
    given = [one.requires_grad_() for one in states(layer, len(of))]
    weights = torch.randn(1, HEADS, len(of), WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.autograd.grad(dense(*given, layer, of), given, weights)
    for attended in (_AlongPaths.apply(*given, rule(layer, of)), _by_blocks(*given, rule(layer, of))):
        found = torch.autograd.grad(attended, given, weights)
        for own, of_rows in zip(found, expected, strict=True):
            torch.testing.assert_close(own, of_rows, rtol=0, atol=EXACT)


@pytest.mark.parametrize("window", [None, 1, 9, 30])
def test_the_block_mask_is_the_dense_one(window: int | None) -> None:
    of = forest(157)
    blocks = _Passing(of, torch.device("cpu")).block_mask(window)
    number = torch.arange(blocks.shape[-1])
    found = blocks.mask_mod(torch.tensor(0), torch.tensor(0), number[:, None], number[None, :])
    everything = torch.arange(len(of))
    assert torch.equal(found[: len(of), : len(of)], of.sees(everything, everything, window))
    assert torch.equal(found[len(of) :], torch.eye(len(number), dtype=torch.bool)[len(of) :])
    in_blocks = blocks.to_dense()[0, 0].bool()
    asked = found.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).any(3).any(1)
    assert torch.equal(in_blocks, asked)  # a block in which nothing is seen is left out


@pytest.mark.parametrize(
    ("devices", "width", "dtype", "expected"),
    [
        ({"cpu"}, 16, torch.float32, True),
        ({"cpu"}, 64, torch.bfloat16, True),
        ({"cpu"}, 8, torch.float32, False),  # too narrow for its kernels
        ({"cpu"}, 64, torch.float64, False),  # they know no float64
        (tree_attention.BY_BLOCKS, 64, torch.float32, False),
    ],
)
def test_blocks_are_for_devices_widths_and_precisions_that_have_a_kernel(
    devices: set[str], width: int, dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the devices only CUDA's; here it is told of the one that tests have."""
    assert {"cuda"} == tree_attention.BY_BLOCKS
    taken: list[str] = []
    monkeypatch.setattr(tree_attention, "BY_BLOCKS", frozenset(devices))
    monkeypatch.setattr(tree_attention, "_by_blocks", lambda query, *_: taken.append("blocks") or query)
    head = torch.ones(1, 1, 9, width, dtype=dtype)
    token = tree_attention._PASSING.set(_Passing(Forest.of([ids(1, 9)]), torch.device("cpu")))
    _attend(nn.Module(), head, head, head, None)
    tree_attention._PASSING.reset(token)
    assert bool(taken) == expected


def test_what_autocast_leaves_apart_is_attended_to_in_one_precision() -> None:
    """Norms of queries and keys leave float32 where values are bfloat16; going backward there is no autocast."""
    of = forest(9)
    query, key, value = (one.requires_grad_() for one in states(LAYERS["soft-capped"], len(of), torch.float32))
    token = tree_attention._PASSING.set(_Passing(of, torch.device("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        attended, _ = _attend(nn.Module(), query, key, value.bfloat16(), None, softcap=0.7)
    tree_attention._PASSING.reset(token)
    assert attended.dtype == torch.bfloat16
    attended.float().sum().backward()
    exact = [one.detach().double().requires_grad_() for one in (query, key, value)]
    layer = LAYERS["soft-capped"]
    expected = torch.autograd.grad(dense(*exact, layer, of).sum(), exact)
    for own, precise in zip((query, key, value), expected, strict=True):
        assert own.grad is not None
        assert own.grad.dtype == torch.float32
        torch.testing.assert_close(own.grad.double(), precise, rtol=0, atol=0.02 * float(precise.abs().max()))


def test_gradients_of_a_shared_beginning_are_added_up_in_float32() -> None:
    """A thousand answers to one prompt: in bfloat16 their parts would stop counting after the first 256."""
    prompt = ids(1, 16)
    of = Forest.of([(*prompt, 40 + number) for number in range(1000)])
    query, key, value = (torch.ones(1, 1, len(of), 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    out = _AlongPaths.apply(query, key, value, rule(Layer(kv_heads=1), of))
    (of_value,) = torch.autograd.grad(out, value, torch.ones_like(out))
    own = sum(1 / (1 + place) for place in range(16))  # of the first token: what the prompt itself takes from it
    assert float(of_value[0, 0, 0, 0]) == pytest.approx(own + 1000 / 17, rel=2**-8)


# ------------------------------------------------------------------------------------------------------- the kernels


@pytest.mark.slow
@pytest.mark.usefixtures("masks_without_checks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_it_attends_the_same_and_is_compiled_twice_for_all_lengths_with_windows_or_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Needs a C++ compiler. Float32: each number is a mean of values near 1, summed in another order."""
    torch._dynamo.reset()
    compiles = CompileCounterWithBackend("inductor")
    compiled = torch.compile(flex.flex_attention, dynamic=True, fullgraph=True, backend=compiles)
    monkeypatch.setattr(tree_attention, "compiled_flex_attention", lambda: compiled)
    for layer in (Layer(kv_heads=2), Layer(kv_heads=2, window=9), Layer(kv_heads=2, window=33)):
        for answer in (9, 157, 300, 55, 801, 156):
            of = forest(answer)
            given = states(layer, len(of), torch.float32)
            with torch.no_grad():
                found, expected = _by_blocks(*given, rule(layer, of)), dense(*given, layer, of)
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)
    assert compiles.frame_count == 4  # the first length and all others, without windows and with them


@pytest.mark.gpu
@pytest.mark.usefixtures("masks_without_checks")
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_on_a_gpu_blocks_give_the_numbers_and_gradients_of_rows(
    layer: Layer, dtype: torch.dtype, within: float
) -> None:
    of = forest(300)
    exact = [one.requires_grad_() for one in states(layer, len(of))]
    weights = torch.randn(1, HEADS, len(of), WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = dense(*exact, layer, of)
    gradients = torch.autograd.grad(expected, exact, weights)
    given = [one.detach().to("cuda", dtype).requires_grad_() for one in exact]
    found = _by_blocks(*given, rule(layer, of, "cuda"))
    torch.testing.assert_close(found.double().cpu(), expected, rtol=0, atol=within)
    largest = max(float(precise.abs().max()) for precise in gradients)  # those of a softmax over one score are 0
    for own, precise in zip(torch.autograd.grad(found, given, weights.to("cuda", dtype)), gradients, strict=True):
        assert float((own.double().cpu() - precise).abs().max()) < within * largest * 3
