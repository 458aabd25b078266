"""Spiking networks of leaky integrate-and-fire (LIF) neurons, trained with surrogate gradients over any Dask scheduler.

The hidden neurons keep a share of their potential from step to step, spike at a threshold, and are lowered by it then
(soft reset); the outputs do not spike, but are read as the means of their potentials (`forward`). The inputs spike at a
Bernoulli rate code, which is a bitstream with a bit for each step (`rate_code`). Where a spike has no derivative, that
of a fast sigmoid stands for it; the optimiser is Adam, from optax. It needs `pip install "scdask[jax]"`, without which
this package can be imported, and what is called says so.

A batch is cut into shards, a task each; a tree of tasks adds up the gradients of many. The shards are those of the
settings, whatever the number of workers, and every spike is a bit of a stream that has its own number. So the weights
are the same to the last bit on one worker and on many, and what is lost with a worker that dies is computed again
elsewhere with the same result. That is where processors, and the cores that each worker may use, are alike: XLA adds up
large products in an order that depends on them.

`train` yields a `State` after each epoch. Where it computes is a scheduler that `scdask.cluster.open_scheduler` opens,
or a Dask `Client`. `save_checkpoint` and `load_checkpoint` keep a state in a file; a training that goes on from it ends
with the weights of one that was never stopped. `to_scmlp` gives the perceptron for stochastic computing whose
activations are the rates of the neurons.

On scikit-learn's digits a network of 64-100-10 neurons with the default `Settings` classifies 0.976 of the test images
right after 40 epochs (0.978, 0.974 and 0.978 for the seeds 0, 1 and 2), its perceptron 0.980 (seed 0, Sobol, N = 1024).
`scdask train digits` does that on the command line.

Examples
--------
>>> import numpy as np
>>> from scdask import snn
>>> from scdask.cluster import open_scheduler
>>> x, y = np.eye(4).repeat(8, axis=0), np.array(["a", "b", "c", "d"]).repeat(8)
>>> settings = snn.Settings(hidden=(16,), epochs=15, batch=8, learning_rate=0.02)
>>> with open_scheduler("threads") as place:
...     for state in snn.train(x, y, settings, place):
...         assert state.losses[-1] < 3
...     right = snn.predict(state, x, settings, place) == y
>>> bool(right.mean() > 0.8)
True
>>> snn.to_scmlp(state, settings).layers[0]
SCDense(4 -> 16, split, x_sng=Sobol(dimension=1), w_sng=Sobol(dimension=2))
"""

from .checkpoints import load_checkpoint, save_checkpoint
from .network import Settings, State, forward, rate_code, to_scmlp
from .prediction import accuracy, predict
from .training import train

__all__ = [
    "Settings",
    "State",
    "accuracy",
    "forward",
    "load_checkpoint",
    "predict",
    "rate_code",
    "save_checkpoint",
    "to_scmlp",
    "train",
]
