"""Training of networks of streams, in floating point and with streams in the loop, over any Dask scheduler.

`train` goes on from the weights that an `SCSequential` of the layers of `scdask.layers` has, and yields a `State` after
each epoch; `trained` is the network with the weights of a state. The loss is the cross-entropy of the softmax of the
outputs, the optimiser Adam, from optax. It needs `pip install "scdask[jax]"`.

With streams in the loop
------------------------
With a `length` in its `Settings`, a training is a fine-tuning for streams of so many bits: forward, each layer of
products puts out what its streams count, with its mode, its generators and its scales, as in inference; backward, the
gradient is that of the layer in floating point at these activations (a straight-through estimator [1]_), and 0 where an
activation is cut to its scale. So the network learns to live with the errors that its streams make. These are no noise:
sequences of low discrepancy make the same error of the same operands each time. That is why the real streams
(``noise="streams"``) gain more than normal noise of the same mean and variance (``noise="model"``), in about the same
time. The figures are accuracies on test images with Sobol sequences, split, before and after 3 epochs of LeNet-5 on
MNIST, and 30 of a 64-32-10 perceptron on scikit-learn's digits:

========================  =====  ============  =========  =======
network                   float  N = 16        streams    model
========================  =====  ============  =========  =======
LeNet-5                   0.975  0.929         0.969      0.931
64-32-10                  0.970  0.917         0.954      0.933
64-32-10, clipped         0.970  0.965         0.974
========================  =====  ============  =========  =======

Scales matter as much as training: the largest weight of a layer is the scale of all. `clipped` cuts the largest ones,
and `SCSequential.calibrated` with a percentile the largest activations. On MNIST a LeNet-5 of float accuracy 0.976 has
0.678 and 0.891 at N = 16 and 32 without, and 0.929 and 0.967 where both are cut at the 99.5th percentile. Of the little
that it loses then at N = 32, 3 epochs with streams in the loop gain a quarter (0.969).

The same weights anywhere
-------------------------
A batch is cut into shards, a task each, and a tree of tasks adds up their gradients, as in `scdask.snn`. Shards do not
depend on workers, so the weights are the same to the last bit on one worker and on many whose processors are alike.
`save_checkpoint` and `load_checkpoint` keep a state in a file, and a training that goes on from it ends with the
weights of one that was never stopped.

`scdask train mnist` does that on the command line.

References
----------
.. [1] Bengio, Leonard, Courville: Estimating or propagating gradients through stochastic neurons for conditional
   computation. arXiv:1308.3432, 2013.

Examples
--------
>>> import numpy as np
>>> from scdask import SCDense, SCSequential, training
>>> from scdask.cluster import open_scheduler
>>> rng = np.random.default_rng(0)
>>> x, y = rng.random((60, 4)), rng.integers(0, 3, 60)
>>> network = SCSequential((SCDense(rng.normal(size=(3, 4)), np.zeros(3)),))
>>> settings = training.Settings(length=16, epochs=2, batch=30)
>>> with open_scheduler("threads") as place:
...     for state in training.train(network, x, y, settings, place):
...         print(state.epoch, len(state.losses))
1 1
2 2
>>> training.trained(network, state)
SCSequential(SCDense(4 -> 3, split, x_sng=Sobol(dimension=1), w_sng=Sobol(dimension=2)))
"""

from .checkpoints import save_checkpoint
from .fitting import Settings, clipped, load_checkpoint, train, trained
from .states import State

__all__ = ["Settings", "State", "clipped", "load_checkpoint", "save_checkpoint", "train", "trained"]
