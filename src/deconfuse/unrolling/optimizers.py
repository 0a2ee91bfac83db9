"""One step of an optimizer on one parameter, forwards and backwards.

The state of a parameter theta is a tuple of tensors that begins with theta. A step takes the state and the
gradient g of the batch's loss to the next state. Backwards, the adjoint of a state is a tuple of the
derivatives of some value in the state's tensors. `back` turns the adjoint after a step into the one before
it, in place, for a constant g, and returns the adjoint of g; what flows back from g into theta is the
Hessian's part (`derivative`), and `receive` adds it.

Leading dimensions: states are (h, *shape) for h heads in training, adjoints (K, *shape) for K values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deconfuse.system.errors import UserError

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Adam:
    """Adam, or AdamW where the decay is decoupled, as in torch.optim: states (theta, m, v).

        m' = beta_1 m + (1 - beta_1) g,   v' = beta_2 v + (1 - beta_2) g^2
        theta' = (1 - rate decay) theta - rate m'/(1 - beta_1^t) / (sqrt(v'/(1 - beta_2^t)) + eps)

    Without `decoupled`, decay theta is added to g instead.
    """

    rate: float
    betas: tuple[float, float]
    eps: float
    decay: float
    decoupled: bool

    def begin(self, theta: Tensor) -> State:
        """The state before the first step."""
        return theta, torch.zeros_like(theta), torch.zeros_like(theta)

    def at(self, state: State) -> Tensor:
        """Where the gradient is taken."""
        return state[0]

    def step(self, state: State, g: Tensor, factor: float, t: int) -> State:
        """The state after step t, counted from 1; factor: of the rate."""
        theta, m, v = state
        m, v, _ = self._moments(theta, m, v, g)
        rate, (one, two) = factor * self.rate, self.betas
        theta = theta * (1 - rate * self.decay) if self.decoupled else theta
        below = (v / (1 - two**t)).sqrt() + self.eps
        return theta.addcdiv(m, below, value=-rate / (1 - one**t)), m, v

    def _moments(self, theta: Tensor, m: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one, two = self.betas
        g = g if self.decoupled or not self.decay else g + self.decay * theta
        return one * m + (1 - one) * g, two * v + (1 - two) * g.square(), g

    def back(self, before: State, g: Tensor, factor: float, t: int, adjoint: State) -> Tensor:
        """The adjoint before step t, in place; returns the adjoint of g.

        Where v' is 0, g has been 0 in every step, and so has m': the root's derivative is left out there.
        """
        m, v, g = self._moments(*before, g)
        rate, (one, two) = factor * self.rate, self.betas
        root = (v / (1 - two**t)).sqrt_()
        below = root + self.eps
        along_m = (-rate / (1 - one**t)) / below
        along_v = torch.where(v > 0, -along_m * m / (2 * (1 - two**t) * below * root), 0.0)
        theta_, m_, v_ = adjoint
        m_.addcmul_(along_m.expand_as(m_), theta_)
        v_.addcmul_(along_v.expand_as(v_), theta_)
        g_ = torch.mul(m_, 1 - one).addcmul_((2 * (1 - two) * g).expand_as(v_), v_)
        m_.mul_(one)
        v_.mul_(two)
        if self.decay and self.decoupled:
            theta_.mul_(1 - rate * self.decay)
        elif self.decay:
            theta_.add_(g_, alpha=self.decay)
        return g_

    def receive(self, adjoint: State, part: Tensor) -> None:
        """Add, in place, what flows back from g to where it was taken."""
        adjoint[0].add_(part)


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, as torch.optim.SGD: states (theta,), with momentum (theta, b).

    b' = momentum b + (1 - dampening) g, in the first step g; theta' = theta - rate b', and with `nesterov`
    theta - rate (g + momentum b'). decay theta is added to g first.
    """

    rate: float
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    decay: float = 0.0

    def begin(self, theta: Tensor) -> State:
        """The state before the first step."""
        return (theta, torch.zeros_like(theta)) if self.momentum else (theta,)

    def at(self, state: State) -> Tensor:
        """Where the gradient is taken."""
        return state[0]

    def _share(self, t: int) -> float:
        """What g counts in b'."""
        return 1.0 if t == 1 else 1 - self.dampening

    def step(self, state: State, g: Tensor, factor: float, t: int) -> State:
        """The state after step t, counted from 1; factor: of the rate."""
        theta, rate = state[0], factor * self.rate
        g = g + self.decay * theta if self.decay else g
        if not self.momentum:
            return (theta - rate * g,)
        b = self.momentum * state[1] + self._share(t) * g
        return theta - rate * (g + self.momentum * b if self.nesterov else b), b

    def back(self, before: State, g: Tensor, factor: float, t: int, adjoint: State) -> Tensor:
        """The adjoint before step t, in place; returns the adjoint of g."""
        theta_, rate = adjoint[0], factor * self.rate
        if self.momentum:
            b_ = adjoint[1].add_(theta_, alpha=-rate * (self.momentum if self.nesterov else 1.0))
            g_ = self._share(t) * b_
            g_ = g_.sub_(theta_, alpha=rate) if self.nesterov else g_
            b_.mul_(self.momentum)
        else:
            g_ = -rate * theta_
        if self.decay:
            theta_.add_(g_, alpha=self.decay)
        return g_

    def receive(self, adjoint: State, part: Tensor) -> None:
        """Add, in place, what flows back from g to where it was taken."""
        adjoint[0].add_(part)


@dataclass(frozen=True)
class LookAhead:
    """Nesterov's descent with the gradient taken ahead: states (theta, v).

    v' = momentum v - rate g(theta + momentum v),  theta' = theta + v'.
    """

    rate: float
    momentum: float

    def begin(self, theta: Tensor) -> State:
        """The state before the first step."""
        return theta, torch.zeros_like(theta)

    def at(self, state: State) -> Tensor:
        """Where the gradient is taken."""
        return state[0] + self.momentum * state[1]

    def step(self, state: State, g: Tensor, factor: float, t: int) -> State:
        """The state after step t; factor: of the rate."""
        v = self.momentum * state[1] - factor * self.rate * g
        return state[0] + v, v

    def back(self, before: State, g: Tensor, factor: float, t: int, adjoint: State) -> Tensor:
        """The adjoint before step t, in place; returns the adjoint of g."""
        theta_, v_ = adjoint
        v_.add_(theta_)
        g_ = -factor * self.rate * v_
        v_.mul_(self.momentum)
        return g_

    def receive(self, adjoint: State, part: Tensor) -> None:
        """Add, in place, what flows back from g to where it was taken."""
        adjoint[0].add_(part)
        adjoint[1].add_(part, alpha=self.momentum)


Optimizer = Adam | SGD | LookAhead


def optimizer_of(make: Callable[..., torch.optim.Optimizer], key: str, **group: float) -> Optimizer:
    """What `make`, a partial of torch.optim's, does to a parameter with these values of its group.

    key: the setting that names the optimizer. Raises UserError for one that is neither Adam, AdamW nor SGD,
    and for amsgrad and maximize.
    """
    made = make([{"params": [nn.Parameter(torch.zeros(1))], **group}])
    (found,) = made.param_groups
    rate, decay = float(found["lr"]), float(found.get("weight_decay", 0))
    odd = [name for name in ("amsgrad", "maximize") if found.get(name)]
    if odd:
        raise UserError(f"influence=unrolled does not go back through {key}.{odd[0]}=true; leave it out")
    if type(made) is torch.optim.SGD:
        names = ("momentum", "dampening", "nesterov")
        return SGD(rate, **{name: found[name] for name in names}, decay=decay)
    if type(made) in (torch.optim.Adam, torch.optim.AdamW):
        decoupled = type(made) is torch.optim.AdamW or bool(found.get("decoupled_weight_decay"))
        return Adam(rate, tuple(map(float, found["betas"])), float(found["eps"]), decay, decoupled)
    raise UserError(
        f"influence=unrolled goes back through Adam, AdamW and SGD, and {key} is {type(made).__name__}; "
        "take one of them, or another influence="
    )
