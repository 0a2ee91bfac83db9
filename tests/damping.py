"""A damping lambda of a given value, as the share of the largest eigenvalue that the method takes."""

from deconfuse.attribution.curvature import hessian_of
from deconfuse.attribution.head import Training
from deconfuse.attribution.network import Network
from deconfuse.attribution.solving import spectrum
from deconfuse.influence.influence_function import NETWORK_LANCZOS


def share_of_largest(side: Training | Network, damping: float) -> float:
    """damping / (H's largest eigenvalue as influence=if estimates it with seed 0)."""
    if isinstance(side, Training):
        return damping / spectrum(hessian_of(side), side.weight).largest

    def product(x):
        return side.hessian_product(x[0, 0])[None, None]

    return damping / spectrum(product, side.theta[None], NETWORK_LANCZOS).largest
