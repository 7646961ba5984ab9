"""How it is known that memory is exhausted."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted: torch and the operating system have several ways."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and "allocate memory" in str(error)
    )
