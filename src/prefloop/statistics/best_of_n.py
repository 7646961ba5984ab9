"""Best-of-n sampling: what it is worth without sampling again, and how far it goes from the policy."""

from collections.abc import Sequence
from math import comb, fsum, log


def best_of_n(proxy: Sequence[float], values: Sequence[float], n: int) -> float:
    """Expected value of the best by proxy of n answers, over all subsets of the N that were scored.

    Unbiased: sum over i of C(i-1, n-1) / C(N, n) times the value of the i-th answer by rising proxy score
    (Nakano et al., arXiv:2112.09332, section 3.1); ties by their order.

    Args:
        proxy: scores that choose, of N answers.
        values: what is averaged, such as the gold score or the proxy itself.
        n: from 1 to N.

    Raises:
        ValueError: n is not from 1 to N.
    """
    size = len(proxy)
    if not 1 <= n <= size:
        raise ValueError(f"n = {n}, expected 1 to {size}")
    order = sorted(range(size), key=lambda index: (proxy[index], index))
    weights = [comb(rank, n - 1) / comb(size, n) for rank in range(size)]
    return fsum(weight * values[index] for weight, index in zip(weights, order, strict=True))


def kl_best_of_n(n: int) -> float:
    """KL(best of n || policy) in nats, log n - (n-1)/n: exact without ties, else an upper bound."""
    return log(n) - (n - 1) / n
