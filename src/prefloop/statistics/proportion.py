"""The uncertainty of a share of independent rows."""

from math import sqrt

from scipy.special import ndtri


def wilson_interval(share: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval of a share (Wilson 1927), which stays inside [0, 1] and is right at 0 and 1 too.

        (share + z^2 / 2n +- z * sqrt(share * (1 - share) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Args:
        share: What was observed, in [0, 1].
        count: n, the number of independent rows.
        level: Coverage, in (0, 1).

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: there is no row, or a value is out of range.
    """
    if count < 1:
        raise ValueError("there is no row")
    if not 0 <= share <= 1 or not 0 < level < 1:
        raise ValueError(f"share is {share} and level {level}, expected in [0, 1] and in (0, 1)")
    z = float(ndtri((1 + level) / 2))
    middle = share + z**2 / (2 * count)
    half = z * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
