"""Arrays as they stand in annotations with shapes.

`numpy.typing.NDArray` names the same types, but from NumPy 2.5 on as an alias in which jaxtyping finds no class.
"""

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Truths = np.ndarray[Any, np.dtype[np.bool_]]
Labels = np.ndarray[Any, np.dtype[Any]]
