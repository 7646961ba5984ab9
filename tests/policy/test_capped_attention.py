"""Models with soft-capped attention are loaded so that the cap is there."""

from pathlib import Path

import torch
from tests.policy.test_trees import SMALL
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from prefloop.policy import ChatCodec, ModelSource, PolicyFiles, Workbench
from prefloop.policy.capped_attention import attention_of


def test_capped_scores_are_left_to_attention_that_knows_the_cap(tmp_path: Path, source: ModelSource) -> None:
    """The same weights with a cap and without one say something else."""
    said: dict[float | None, torch.Tensor] = {}
    for cap in (None, 0.2):
        torch.manual_seed(1)
        config = Gemma2Config(**SMALL, head_dim=8, attn_logit_softcapping=cap)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / str(cap))
        capped = ModelSource("capped", tmp_path / str(cap), "capped", None)
        bench = Workbench(capped, ChatCodec.load(source.directory, {}), torch.device("cpu"))
        with bench.for_scoring(PolicyFiles("capped", capped.directory)) as model:
            said[cap] = model(input_ids=torch.arange(20)[None]).logits.detach()

    assert attention_of(tmp_path / "0.2") == "eager"
    assert attention_of(tmp_path / "None") is None
    assert (said[0.2] - said[None]).abs().max() > 1e-3


def test_others_are_left_to_transformers(tmp_path: Path) -> None:
    LlamaConfig(**SMALL).save_pretrained(tmp_path)
    assert attention_of(tmp_path) is None
