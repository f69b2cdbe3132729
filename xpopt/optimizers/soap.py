"""SOAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule, most_to_square
from .._graph.slots import Shape, slot
from .._settings.ranges import DECAY, EPS, Companion, Range
from .._settings.setting import setting
from .base import OptimizerBase


def _of_rows(shape: Shape) -> Shape:
    return shape[0], shape[0]


def _of_cols(shape: Shape) -> Shape:
    return shape[1], shape[1]


class SOAPState(NamedTuple):
    """What SOAP remembers of each parameter, of r rows and s columns."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients in the other basis, starts at 0, never negative
    left: Array = slot(shape=_of_rows)  # (r, r); running mean of grad @ grad.T, starts at 0
    right: Array = slot(shape=_of_cols)  # (s, s); running mean of grad.T @ grad, starts at 0
    left_basis: Array = slot(shape=_of_rows)  # (r, r); in its columns the eigenvectors of left, nearly
    right_basis: Array = slot(shape=_of_cols)  # (s, s); those of right


class SOAP(OptimizerBase):
    r"""Step as Adam does, in the basis of the eigenvectors of Shampoo's two matrices.

    .. math::

        G'_t &= Q_L^\top G_t Q_R \\
        M_t &= \beta_1 M_{t-1} + (1 - \beta_1) G_t, \qquad M'_t = Q_L^\top M_t Q_R \\
        V_t &= \beta_2 V_{t-1} + (1 - \beta_2) G'^2_t \\
        N'_t &= \frac{M'_t / (1 - \beta_1^{t-1})}{\sqrt{V_t / (1 - \beta_2^{t-1}) + \epsilon}} \\
        \theta_t &= \theta_{t-1} - \eta \, Q_L N'_t Q_R^\top \\
        L_t &= \beta_2 L_{t-1} + (1 - \beta_2) G_t G_t^\top, \qquad
            R_t = \beta_2 R_{t-1} + (1 - \beta_2) G_t^\top G_t

    and after every f-th of these steps :math:`Q_L` and :math:`Q_R` are replaced by the orthogonal factors of the QR
    decompositions of :math:`L_t Q_L` and :math:`R_t Q_R`.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
    eps : float
        :math:`\epsilon`, in units of the squared gradient. Greater than 0, and must not round to 0 in the compute
        dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    every : int
        :math:`f`, the number of steps between two changes of the basis. At least 1.
    others : OptimizerBase or None
        The optimizer of the parameters that are not matrices, such as ``AdamW()``. Its algorithm, settings and schedule
        are copied. A group with a dict of settings applies to both: each of the two takes those that it has.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range; or, in an update without `others`, a parameter that is not a matrix.

    Notes
    -----
    This is Algorithms 3 and 4 of [1]_, with Adam's bias corrections. As in the authors' program, the first gradient
    does not change the parameter: :math:`Q_L` and :math:`Q_R` are the eigenvectors of the first :math:`L` and
    :math:`R`, and steps are counted from the second one on. Where a parameter has more rows than columns, :math:`L` has
    then no more eigenvalues above 0 than there are columns, and the library chooses the other directions.

    It keeps two squares of each side, 2 (r * r + s * s) numbers, beside Adam's means: large embeddings should go to
    another optimizer, ``groups={"embed": AdamW()}``. It runs eagerly, by functions ``eigh`` and ``qr`` of the arrays'
    library, of which Dask has no ``eigh``. It branches on the count, so that its pure form cannot be traced.

    References
    ----------
    .. [1] Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade, "SOAP: Improving and Stabilizing
       Shampoo using Adam", ICLR 2025, arXiv:2409.11321.

    Examples
    --------
    >>> import numpy as np
    >>> opt = SOAP(lr=0.1)
    >>> x, grad = np.zeros((2, 2)), np.array([[0.0, 3.0], [3.0, 0.0]])
    >>> for _ in range(2):
    ...     x = opt.update(x, grad, "W")
    >>> x.round(2)
    array([[ 0. , -0.1],
           [-0.1,  0. ]])
    """

    lr: float = setting(default=0.003)
    decay1: float = setting(default=0.95, range=DECAY)
    decay2: float = setting(default=0.95, range=DECAY)
    eps: float = setting(default=1e-8, range=EPS)
    every: int = setting(default=10, range=Range(low=1, kind="int"), neutral=10, kw_only=True)
    others: OptimizerBase | Mapping[str, Any] | None = setting(
        default=None, range=Companion(), neutral=None, kw_only=True
    )

    slots = SOAPState
    fused = False
    axes = 2

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: SOAPState, h: Scalars) -> tuple[Array, SOAPState]:
        """Algorithm 3 of Vyas et al."""
        matrix: Any = grad
        left = h.decay2 * s.left + (1 - h.decay2) * (matrix @ matrix.T)
        right = h.decay2 * s.right + (1 - h.decay2) * (matrix.T @ matrix)
        if h.t == 1:
            return param, SOAPState(s.mean, s.var, left, right, _eigenvectors(xp, left), _eigenvectors(xp, right))
        of_rows, of_cols = _begun(xp, s.left_basis), _begun(xp, s.right_basis)
        steps = h.t - 1
        turned = of_rows.T @ matrix @ of_cols
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * turned * turned
        correction, scale = 1 / (1 - h.decay1**steps), 1 / (1 - h.decay2**steps)
        scaled = correction * (of_rows.T @ mean @ of_cols) / xp.sqrt(scale * var + h.eps)
        new = param - h.lr * (of_rows @ scaled @ of_cols.T)
        if steps % h.every == 0:
            of_rows, of_cols = _iterated(xp, left, of_rows), _iterated(xp, right, of_cols)
        return new, SOAPState(mean, var, left, right, of_rows, of_cols)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule, which says how large gradients may be, since it cannot be read from it."""
        return _RULE if cls.rule is SOAP.rule else super().choose_rule(settings)


def _eigenvectors(xp: Namespace, square: Any) -> Any:
    return xp.linalg.eigh(square)[1]


def _begun(xp: Namespace, basis: Any) -> Any:
    """Return a basis; the axes where there is none, since a device has left out the first step, and counted it."""
    axes = xp.eye(basis.shape[0], dtype=basis.dtype, device=basis.device)
    return xp.where(xp.any(basis != 0), basis, axes)


def _iterated(xp: Namespace, square: Any, basis: Any) -> Any:
    """Return eigenvectors after one power iteration: Algorithm 4."""
    return xp.linalg.qr(square @ basis)[0]


_RULE = Rule(SOAP.rule, SOAPState, fused=False, most=most_to_square)
