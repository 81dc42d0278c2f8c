"""The five dynamics of Section 2 of [CSB24], one interface: ``f(problem, W0, ...) -> Trajectory``.

==============================  ====================================================  ========
function                        what moves ``W``                                      equation
==============================  ====================================================  ========
``gradient_flow``               the gradient, in continuous time                      (4)
``gradient_descent``            the gradient, in steps of a learning rate             (5)
``stochastic_gradient_flow``    the gradient and a Brownian motion                    (6)
``stochastic_gradient_descent`` the gradient of random mini-batches                   (7)
``practical_descent``           momentum, Adam, layer normalisation                   Sec. 2
==============================  ====================================================  ========
"""

from amem_core.dynamics.descent import gradient_descent, stochastic_gradient_descent
from amem_core.dynamics.flow import gradient_flow
from amem_core.dynamics.practical import practical_descent
from amem_core.dynamics.stochastic_flow import stochastic_gradient_flow
from amem_core.dynamics.trajectory import Trajectory

__all__ = [
    "Trajectory",
    "gradient_descent",
    "gradient_flow",
    "practical_descent",
    "stochastic_gradient_descent",
    "stochastic_gradient_flow",
]
