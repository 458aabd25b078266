"""Layers whose products are streams: the SC matrix product, dense layers, and networks of any layers in a row.

The product
-----------
`matmul` is the stochastic estimate of `x @ w.T` for x in [0, 1] and real w. In the mode "split" a weight is the
difference of two unipolar streams, w = w+ - w-, and AND multiplies; in "bipolar" both operands are bipolar streams, and
XNOR multiplies. Split needs twice the operations, and far fewer bits for the same error:

>>> import numpy as np
>>> import scdask as sc
>>> rng = np.random.default_rng(0)
>>> x, w = rng.random((100, 64)), rng.normal(size=(10, 64))
>>> for mode in ("split", "bipolar"):
...     for length in (64, 1024, 16384):
...         error = sc.matmul(x, w, length, mode=mode) - x @ w.T
...         print(mode, length, f"{np.sqrt((error**2).mean()):.4f}")
split 64 0.2378
split 1024 0.0171
split 16384 0.0013
bipolar 64 1.9562
bipolar 1024 0.0712
bipolar 16384 0.0058

The streams of a tile are encoded, used and dropped, so that memory does not grow with batch x neurons x length.

Networks
--------
`SCDense` is `matmul` and a bias in binary. `SCMLP` has dense layers in a row with ReLU in binary between them. It is
built from plain arrays (`from_arrays`, weights of shape (neurons, inputs)), from an npz file (`load`), or from a fitted
scikit-learn `MLPClassifier` with ReLU (`from_sklearn`). What a hidden layer puts out is divided by the scale of the
next layer and encoded again. The calibration inputs set that scale: the largest activation that they cause in floating
point. What exceeds it later is cut.

>>> weights = [rng.normal(size=(8, 64)), rng.normal(size=(3, 8))]
>>> mlp = sc.SCMLP.from_arrays(weights, [np.zeros(8), np.zeros(3)], calibration=x, classes=["a", "b", "c"])
>>> bool((mlp.predict(x, 4096) == mlp.predict_float(x)).mean() > 0.9)
True

`with_generators` gives each layer other generators, and all another mode. `predict` of a Dask array is lazy:

>>> import dask.array as da
>>> other = mlp.with_generators([(sc.Bernoulli(1), sc.Bernoulli(2)), (sc.Bernoulli(3), sc.Bernoulli(4))])
>>> other.predict(da.from_array(x, chunks=(50, -1)), 256)
dask.array<take, shape=(100,), dtype=<U1, chunksize=(50,), chunktype=numpy.ndarray>

`save` writes an npz file with the arrays `weights_0` (neurons, inputs), `bias_0` (neurons,), `weights_1`, ... of all
layers, `classes`, the labels of the outputs, and `input_scales`, one a layer. `load` reads it, also without the last
two, if it is given calibration inputs. Mode and generators are not in the file.

Any layers in a row
-------------------
`SCSequential` takes any layers in a row: `SCConv2d` and `SCDense`, which multiply streams; `MaxPool2d`, `AvgPool2d`,
`Flatten`, `Reshape`, `ReLU`, `Clip`, `Tanh`, `Logistic` and `Softmax`, which are in binary; and subclasses of `Layer`
of your own. What a layer puts out is cut to what the next one takes: to [0, input_scale], which is ReLU, or, if that
layer is `signed`, to [-input_scale, input_scale].

>>> class Means(sc.layers.Layer):  # It gives the mean of two neighbouring inputs.
...     def output_shape(self, shape):
...         return (shape[0] // 2,)
...     def exact(self, x):
...         return x.reshape(len(x), -1, 2).mean(axis=2)
>>> layers = [Means(), sc.SCDense(rng.normal(size=(3, 32)), np.zeros(3))]
>>> network = sc.SCSequential(layers, input_shape=(64,))
>>> bool((network.predict(x, 4096) == network.predict_float(x)).mean() > 0.9)
True
"""

from .activations import Clip, Logistic, ReLU, Softmax, Tanh
from .affine import Affine, Saturation
from .base import Layer
from .conv import SCConv2d
from .dense import SCDense, matmul
from .models import load_model
from .network import SCSequential
from .perceptron import SCMLP
from .pooling import AvgPool2d, Flatten, MaxPool2d, Reshape, Transpose

__all__ = [
    "SCMLP",
    "Affine",
    "AvgPool2d",
    "Clip",
    "Flatten",
    "Layer",
    "Logistic",
    "MaxPool2d",
    "ReLU",
    "Reshape",
    "SCConv2d",
    "SCDense",
    "SCSequential",
    "Saturation",
    "Softmax",
    "Tanh",
    "Transpose",
    "load_model",
    "matmul",
]
