"""What holds for all tests."""

import os

# The models are tiny: one thread computes them fastest, and is not slowed a hundred times by a busy second core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
