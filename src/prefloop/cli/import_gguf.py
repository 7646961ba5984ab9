"""`prefloop import-gguf`: a GGUF file made into an ordinary model directory."""

from pathlib import Path


def import_gguf(file: Path, out: Path) -> None:
    """Makes a GGUF file an ordinary Hugging Face model directory.

    Example: prefloop import-gguf model.gguf models/mine
    """
    from prefloop.policy import gguf

    gguf.import_gguf(file, out)
    print(f"{out}: ready. Name it as `model:` in a recipe.")
