"""Supervised fine-tuning: whole rows packed without seeing each other, and the assistant's turns alone in the loss."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefloop.config import load_recipe
from prefloop.loop import Progress, RunResult, run_recipe
from prefloop.objectives import find_objective
from prefloop.pairing import Dropped, demonstrations, find_rule
from prefloop.policy import ChatCodec, EncodingSettings, TokenRow, Trainable
from prefloop.records import Example, Group, Judgment, Message, Prompt, Response
from prefloop.training import ROWS, TREES, Budget, Engine, Layout, LossOfPlan, TokenExample, data_columns, tokenised
from prefloop.training.layout import scores_of_trees

SFT = find_objective("sft", "here")
VOCAB = 40
LENGTHS = ((3, 9), (11, 2), (6, 6), (2, 1), (8, 5))
"""Tokens of each row's prompt and answer."""


def rows(seed: int = 0) -> list[TokenExample]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCAB, (count,), generator=generator).tolist())

    made = [TokenRow(drawn(prompt), drawn(answer), (True,) * answer) for prompt, answer in LENGTHS]
    return [
        TokenExample(str(number), {"chosen": row}, {"chosen": row.counted}, 1.0, {}, {"chosen": {}})
        for number, row in enumerate(made)
    ]


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).double().eval()


def stepped(
    examples: list[TokenExample], layout: Layout, reduction: str, tokens: int = 1000
) -> tuple[dict[str, float], list[torch.Tensor]]:
    """What one optimiser step on all examples says, and the gradient that it left."""
    model = llama()
    loss = LossOfPlan(SFT, {"nll_reduction": reduction}, data_columns(examples, SFT), {})
    trainable = Trainable(model, None, Path(), {})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    engine = Engine(trainable, loss, examples, optimizer, 1e9, Budget(tokens), layout)
    said = engine.step(range(len(examples)), 0.0)
    return said, [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def by_hand(examples: list[TokenExample], reduction: str) -> tuple[float, list[torch.Tensor]]:
    """The loss and its gradient from each row alone, by the model's own forward."""
    model = llama()
    sums: list[torch.Tensor] = []
    for one in examples:
        row = one.rows["chosen"]
        ids = torch.tensor([[*row.prompt_ids, *row.answer_ids]])
        logps = model(ids).logits[0, :-1].log_softmax(1)
        answer = torch.tensor(row.answer_ids)
        sums.append(logps[-len(answer) :].gather(1, answer[:, None]).sum())
    lengths = torch.tensor([len(one.rows["chosen"].answer_ids) for one in examples], dtype=torch.float64)
    logps = torch.stack(sums)
    loss = {
        "token_mean": -logps.sum() / lengths.sum(),
        "sequence_mean": -(logps / lengths).mean(),
        "sequence_sum": -logps.mean(),
    }[reduction]
    loss.backward()
    return loss.item(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("layout", [TREES, ROWS], ids=lambda layout: layout.name)
def test_packed_rows_have_the_loss_and_the_gradient_of_each_row_alone(layout: Layout, reduction: str) -> None:
    expected, gradients = by_hand(rows(), reduction)

    said, found = stepped(rows(), layout, reduction)

    assert said["loss"] == pytest.approx(expected, rel=1e-12)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_whole_rows_are_packed_without_padding() -> None:
    said, _ = stepped(rows(), TREES, "token_mean")

    assert said["tokens"] == sum(prompt + answer for prompt, answer in LENGTHS)


def test_a_row_does_not_see_the_rows_that_are_packed_with_it() -> None:
    """Other tokens in all other rows move nothing of what is said of the first."""
    first, *_ = rows()
    others = rows(seed=1)[1:]
    packed = [first.rows["chosen"], *(one.rows["chosen"] for one in others)]
    with torch.no_grad():
        together = scores_of_trees(llama(), packed, {"logps"})["logps"][0]
        alone = scores_of_trees(llama(), packed[:1], {"logps"})["logps"][0]
    assert together.item() == pytest.approx(alone.item(), abs=1e-12)


DIALOGUE = (
    Message(role="user", content="How are you?"),
    Message(role="assistant", content="I am happy."),
    Message(role="user", content="What shall I do today?"),
)


@pytest.mark.parametrize(
    ("loss_on", "counted"),
    [("last_turn", "Go for a walk.<|im_end|>"), ("all_turns", "I am happy.<|im_end|>Go for a walk.<|im_end|>")],
)
def test_the_assistants_turns_alone_are_in_the_loss(codec: ChatCodec, loss_on: str, counted: str) -> None:
    prompt = Prompt.of(DIALOGUE)
    (example,) = demonstrations(Group((prompt,), (answer(prompt, "Go for a walk."),)))
    assert isinstance(example, Example)

    ((one,), _) = tokenised([example], codec, EncodingSettings(512, loss_on=loss_on))  # pyright: ignore[reportArgumentType]

    row = one.rows["chosen"]
    kept = [token for token, counts in zip(row.answer_ids, row.counted, strict=True) if counts]
    assert codec.tokenizer.decode(kept) == counted


def answer(prompt: Prompt, text: str, step: str = "given") -> Response:
    return Response(
        response_id=text,
        prompt_id=prompt.prompt_id,
        root_id=prompt.root_id,
        step=step,
        text=text,
        finish_reason="given",
    )


def test_demonstrations_are_given_answers_that_nothing_speaks_against() -> None:
    prompt = Prompt.of(DIALOGUE)
    said = [
        Judgment(judge="d", kind="preference", subjects=("won", "lost"), values=(0.8,)),
        Judgment(judge="d", kind="preference", subjects=("tied", "tied too"), values=(0.5,)),
        Judgment(judge="d", kind="label", subjects=("good",), values=(1.0,)),
        Judgment(judge="d", kind="label", subjects=("bad",), values=(0.0,)),
    ]
    names = ("won", "lost", "tied", "tied too", "good", "bad", "plain")
    responses = (*(answer(prompt, name) for name in names), answer(prompt, "own", step="samples"))

    made = list(demonstrations(Group((prompt,), responses, tuple(said))))

    assert [one.member("chosen").text for one in made if isinstance(one, Example)] == [
        "won",
        "tied",
        "tied too",
        "good",
        "plain",
    ]
    assert [one.reason for one in made if isinstance(one, Dropped)] == ["a worse answer"] * 2
    assert find_rule("demonstrations", "here").roles == ("chosen",)


def test_dialogues_are_learnt_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dialogues.jsonl"
    line = (
        '{"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "I am happy."}]}'
    )
    other = line.replace("How are you?", "What shall I do today?").replace("I am happy.", "Go for a walk.")
    file.write_text(f"{line}\n{other}\n", encoding="utf-8")
    loaded = load_recipe("sft.tiny", [f"data={file}", "policy.epochs=12", "policy.learning_rate=1e-2"])

    done: RunResult = run_recipe(loaded, tmp_path / "run", Progress())

    lines = (done.run / "round-00/policy/training.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0] - 0.5
