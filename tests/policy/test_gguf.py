"""GGUF files made into ordinary model directories."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prefloop.cli.import_gguf import import_gguf as import_gguf_command
from prefloop.errors import ModelError
from prefloop.policy import model_facts
from prefloop.policy.gguf import cached_gguf, described_gguf, import_gguf, smollm2_file
from prefloop.policy.template import ChatCodec
from prefloop.records import Message, Prompt

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TOKENS = ["<|text|>", "<|start|>", "<|end|>", *sorted(ByteLevel.alphabet()), "ĊĊ", "ĠĠ"]
NUM_HEADS, NUM_KEY_VALUE_HEADS = 4, 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path / "cache"))


def small_llama(*, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENS),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=NUM_HEADS,
            num_key_value_heads=NUM_KEY_VALUE_HEADS,
            max_position_embeddings=128,
            tie_word_embeddings=tied,
        )
    ).eval()


def permuted(weight: Tensor, num_heads: int) -> Tensor:
    """llama.cpp rotates neighbouring pairs where transformers rotates halves; its files hold rows in that order."""
    rows, columns = weight.shape
    return weight.view(num_heads, 2, rows // num_heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def gguf_weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """The weights under GGUF's names, in GGUF's order of rows."""
    tensors = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
    }
    if not model.config.tie_word_embeddings:
        tensors["output.weight"] = model.lm_head.weight
    for number, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        parts = {
            "attn_norm": layer.input_layernorm.weight,
            "attn_q": permuted(attention.q_proj.weight, NUM_HEADS),
            "attn_k": permuted(attention.k_proj.weight, NUM_KEY_VALUE_HEADS),
            "attn_v": attention.v_proj.weight,
            "attn_output": attention.o_proj.weight,
            "ffn_norm": layer.post_attention_layernorm.weight,
            "ffn_gate": mlp.gate_proj.weight,
            "ffn_up": mlp.up_proj.weight,
            "ffn_down": mlp.down_proj.weight,
        }
        tensors |= {f"blk.{number}.{name}.weight": weight for name, weight in parts.items()}
    return {name: weight.detach() for name, weight in tensors.items()}


def write_gguf(
    file: Path,
    model: LlamaForCausalLM,
    *,
    architecture: str = "llama",
    pre: str = "smollm",
    quantised: bool = False,
    more: dict[str, Tensor] | None = None,
) -> Path:
    """A GGUF file as llama.cpp's converter would write it."""
    writer, config = gguf.GGUFWriter(file, architecture), model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KEY_VALUE_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // NUM_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["Ċ Ċ", "Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in (gguf_weights(model) | (more or {})).items():
        values = weight.float().numpy()
        if quantised and weight.dim() == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            half = weight.dtype == torch.float16 and weight.dim() == 2  # norms stay float32, as in real files
            writer.add_tensor(name, values.astype(np.float16) if half else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> Tensor:
    return model(torch.arange(20)[None] * 7 % len(TOKENS)).logits


@pytest.mark.parametrize("tied", [True, False])
def test_an_imported_model_is_the_original_to_the_last_bit(tmp_path: Path, tied: bool) -> None:
    original = small_llama(tied=tied)
    out = import_gguf(write_gguf(tmp_path / "m.gguf", original), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.config.tie_word_embeddings is tied
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    for name, weight in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert torch.equal(logits_of(loaded), logits_of(original))


def test_an_imported_quantised_model_computes_what_its_gguf_does(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", small_llama(), quantised=True)
    from_gguf = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(import_gguf(file, tmp_path / "out"))
    assert not hasattr(loaded.config, "quantization_config")
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(logits_of(loaded), logits_of(from_gguf), rtol=0, atol=1e-6)


def test_half_precision_weights_stay_half_when_nothing_is_lost(tmp_path: Path) -> None:
    half = small_llama().half()
    loaded = AutoModelForCausalLM.from_pretrained(import_gguf(write_gguf(tmp_path / "m.gguf", half), tmp_path / "out"))
    assert loaded.dtype == torch.float16
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in half.state_dict().items())


def test_template_and_ends_come_from_the_gguf(tmp_path: Path) -> None:
    codec = ChatCodec.load(import_gguf(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "out"), {})
    assert codec.tokenizer.chat_template == TEMPLATE
    assert (codec.eos_ids, codec.eos_id) == ({0, 2}, 2)
    ids = codec.prompt_ids(Prompt.of((Message(role="user", content="Hi"),)))
    assert [ids[0], ids[-11]] == [1, 1]  # <|start|>user ... <|start|>assistant and a line break
    assert codec.text_of(codec.response_ids("Café\n\n1. x", finished=True)) == "Café\n\n1. x"


def test_digits_are_cut_off_before_the_spaces_around_them(tmp_path: Path) -> None:
    """llama.cpp's `smollm`; with GPT-2's own rule the last blank would stick to the number and the pair never merge."""
    out = import_gguf(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.tokenize("a\n\n1.  23") == ["a", "ĊĊ", "1", ".", "ĠĠ", "2", "3"]
    plain = import_gguf(write_gguf(tmp_path / "p.gguf", small_llama(), pre="gpt-2"), tmp_path / "plain")
    assert AutoTokenizer.from_pretrained(plain).tokenize("a\n\n1.") == ["a", "Ċ", "Ċ", "1", "."]


def test_the_second_import_of_the_same_content_is_a_copy(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", small_llama())
    first = import_gguf(file, tmp_path / "a" / "out")
    built = cached_gguf(file.rename(tmp_path / "renamed.gguf"))
    second = import_gguf(tmp_path / "renamed.gguf", tmp_path / "b")
    assert len(list((tmp_path / "cache").glob("*.json"))) == 1
    names = sorted(found.name for found in built.directory.iterdir())
    for out in (first, second):
        assert sorted(found.name for found in out.iterdir()) == names
        assert (out / "model.safetensors").read_bytes() == (built.directory / "model.safetensors").read_bytes()
    assert [found.name for found in tmp_path.glob(".*")] == []


def test_a_description_is_the_model_without_its_weights(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "small.gguf", small_llama())

    described, whole = described_gguf(file).directory, cached_gguf(file).directory

    assert not list(described.glob("*.safetensors"))
    assert model_facts(described, None) == model_facts(whole, None)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (described / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_gguf_command(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "out")
    assert capsys.readouterr().out == f"{tmp_path}/out: ready. Name it as `model:` in a recipe.\n"


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04zip")
    with pytest.raises(ModelError, match=r"m\.gguf: not a GGUF file: it begins with b'PK.*', expected b'GGUF'\.$"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    with pytest.raises(ModelError, match=r"none\.gguf: no such file\. Expected a GGUF file\.$"):
        import_gguf(tmp_path / "none.gguf", tmp_path / "out")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", small_llama()).read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ModelError, match=r"m\.gguf: damaged or cut short: .*Download it again\.$") as caught:
        import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", small_llama(), architecture="granitehybrid")
    with pytest.raises(
        ModelError, match=r"transformers cannot read this 'granitehybrid' GGUF: .* original directory\.$"
    ):
        import_gguf(file, tmp_path / "out")


def test_a_tensor_that_would_be_dropped_unsaid_is_an_error(tmp_path: Path) -> None:
    """Llama 3.1's files scale the rotation in rope_freqs.weight, which transformers does not read."""
    llama = small_llama()
    file = write_gguf(tmp_path / "m.gguf", llama, more={"rope_freqs.weight": torch.ones(8)})
    count = llama.num_parameters()
    with pytest.raises(
        ModelError, match=rf"transformers read {count:,} of its {count + 8:,} weights into a 'llama' model"
    ):
        import_gguf(file, tmp_path / "out")


def test_an_unknown_way_to_cut_text_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", small_llama(), pre="viking")
    with pytest.raises(ModelError, match=r"cuts text in the way 'viking', which is not known here\. Known: command-r"):
        import_gguf(file, tmp_path / "out")


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", small_llama())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(ModelError, match=r"out: already exists and is not an empty directory\. Name another"):
        import_gguf(file, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert (import_gguf(file, tmp_path / "empty") / "config.json").is_file()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", small_llama())
    with pytest.raises(ModelError, match=r"out: cannot be written: File exists\. Name another directory\.$"):
        import_gguf(file, file / "out")


@pytest.mark.slow
def test_smollm2_cooks_and_stops_by_itself(tmp_path: Path) -> None:
    out = import_gguf(smollm2_file(), tmp_path / "out")
    codec = ChatCodec.load(out, {})
    # ids that other readers of this file agree on
    assert codec.response_ids("Hello world! 123", finished=False) == (19556, 905, 17, 216, 33, 34, 35)
    assert codec.response_ids("  multiple   spaces", finished=False) == (216, 2701, 256, 5600)
    assert codec.response_ids("Steps:\n\n1. Buy", finished=True) == (21831, 42, 1116, 33, 30, 25367, 2)

    model = AutoModelForCausalLM.from_pretrained(out)
    assert (model.dtype, model.lm_head.weight is model.model.embed_tokens.weight) == (torch.float32, True)
    greeting = (
        Message(role="user", content="Hi there!"),
        Message(role="assistant", content="Hello! How can I help you today?"),
        Message(role="user", content="What should I cook tonight?"),
    )
    prompt = torch.tensor([codec.prompt_ids(Prompt.of(greeting))])
    answer = model.generate(prompt, do_sample=False, max_new_tokens=200)[0, prompt.shape[1] :].tolist()
    assert answer[-1] == codec.eos_id
    assert "cook" in codec.text_of(answer)
    assert codec.response_ids(codec.text_of(answer), finished=True) == tuple(answer)

    file = smollm2_file()
    from_gguf = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(prompt).logits, from_gguf(prompt).logits, rtol=0, atol=1e-6)
