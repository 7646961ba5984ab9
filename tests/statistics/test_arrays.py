"""The package is imported with NumPy's later form of NDArray, which this Python may be too old for."""

import subprocess
import sys

LATER = """
import typing, numpy, numpy.typing, typing_extensions
kind = typing.TypeVar("kind", bound=numpy.generic)
of = numpy.ndarray[tuple[typing.Any, ...], numpy.dtype[kind]]
numpy.typing.NDArray = typing_extensions.TypeAliasType("NDArray", of, type_params=(kind,))
import prefloop.evaluation, prefloop.statistics
print(prefloop.statistics.clustered_share.__module__)
"""


def test_annotations_with_shapes_name_arrays_whatever_numpy_calls_them() -> None:
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("prefloop.statistics.proportion\n", "")
