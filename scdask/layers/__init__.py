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

`with_generators` gives each layer other generators, or keeps them (None), and all another mode. `predict` of a Dask
array is lazy:

>>> import dask.array as da
>>> other = mlp.with_generators([(sc.Bernoulli(1), sc.Bernoulli(2)), (sc.Bernoulli(3), sc.Bernoulli(4))])
>>> other.predict(da.from_array(x, chunks=(50, -1)), 256)
dask.array<take, shape=(100,), dtype=<U1, chunksize=(50,), chunktype=numpy.ndarray>

`save` writes an npz file with the arrays `weights_0` (neurons, inputs), `bias_0` (neurons,), `weights_1`, ... of all
layers, `classes`, the labels of the outputs, and `input_scales`, one a layer. `load` reads it, also without the last
two, if it is given calibration inputs. Mode and generators are not in the file.

Models from where people have them
----------------------------------
`SCSequential.from_onnx` reads an ONNX model, with the package `onnx` (`pip install "scdask[onnx]"`), and
`SCSequential.from_sklearn` a fitted estimator of scikit-learn: perceptrons with any activation, linear classifiers and
regressors, or a `Pipeline` of scalers and one of them. Both are given calibration inputs, as the model takes them.
To ONNX one comes by a line::

    torch.onnx.export(model.eval(), (x,), "model.onnx")  # PyTorch, with onnxscript
    model.export("model.onnx", format="onnx")  # Keras
    onnx.save(skl2onnx.to_onnx(estimator, x.astype("f4")), "model.onnx")  # scikit-learn, if not by from_sklearn

    network = scdask.SCSequential.from_onnx("model.onnx", calibration=x)
    network.score(x_test, y_test, 256)
    network.to_onnx("network.onnx")  # in float32, with its scales: from_onnx("network.onnx") needs no calibration

A last softmax or sigmoid is left out where classes or labels are read out, so that `logits` are logits. Batch
normalization becomes part of the layer before it. What scales inputs becomes part of the first layer where that costs
no bits, as with images; a scaler of the columns of a table stays in binary. `load_model` reads all kinds of files.

Any layers in a row
-------------------
`SCSequential` takes any layers in a row: `SCConv2d` and `SCDense`, which multiply streams; `MaxPool2d`, `AvgPool2d`,
`Flatten`, `Reshape`, `Transpose`, `Affine`, `Saturation`, `ReLU`, `Clip`, `Tanh`, `Logistic` and `Softmax`, which are
in binary; and subclasses of `Layer` of your own. What a layer puts out is cut to what the next one takes: to
[0, input_scale], which is ReLU, or, if that layer is `signed`, to [-input_scale, input_scale].

>>> class Means(sc.layers.Layer):  # It gives the mean of two neighbouring inputs.
...     def output_shape(self, shape):
...         return (shape[0] // 2,)
...     def exact(self, x):
...         return x.reshape(len(x), -1, 2).mean(axis=2)
>>> hidden, output = rng.normal(size=(16, 32)), rng.normal(size=(3, 16))
>>> layers = [Means(), sc.SCDense(hidden, np.zeros(16)), sc.SCDense(output, np.zeros(3))]
>>> network = sc.SCSequential(layers, input_shape=(64,)).calibrated(x)
>>> bool((network.predict(x, 4096) == network.predict_float(x)).mean() > 0.9)
True

`calibrated` sets the scales of the hidden layers: without it they are 1, and most activations would be cut.
`network.explain` says what is cut.

As few cycles as needed
-----------------------
The first bits of a stream are a coarse value already, and many samples need no more (progressive precision). With a
rule that stops it, `predict` gives the label of each sample, the cycles that it took, and its margin: `Margin`, the
difference of the two largest softmax probabilities; `Stability`, the same label at some checks in a row; `Cycles`, a
number for all; or a subclass of `Rule` of your own.

>>> from scdask.layers import Cycles, Margin
>>> label, cycles, margin = mlp.predict(x, 1024, stop=Margin(0.9))
>>> bool((label == mlp.predict(x, 1024)).mean() > 0.9), bool(cycles.mean() < 300)
(True, True)

A run that is cut at n cycles is the network evaluated from the first n bits of all its streams of N: each layer counts
them, and what it puts out is encoded again, as a stream of N bits of which the next layer counts the first n. A sample
has the results of a run cut at its cycles, and `Cycles(N)` gives those of a plain one:

>>> at_16 = cycles == 16
>>> bool((label[at_16] == mlp.predict(x, 1024, stop=Cycles(16)).label[at_16]).all())
True

Samples that are decided are taken out of the chunk. For the others the first layer that encodes goes on counting where
it was; no bit of its inputs is encoded twice. Later layers, whose inputs differ at each check, count again from bit 0:
the default checks (`early_exit.checks`) are few where bits are many. Each check also takes the arithmetic in binary
between the layers, so that the time falls less than the cycles do, most of all for small layers and small chunks: with
streams below about 1,000 bits it may even rise. Cycles are what hardware pays. A sample that nothing decides takes all
N, so choose streams that are just long enough.

Scikit-learn's digits by a 64-32-10 perceptron, whose accuracy in floating point is .970, with streams of 1,024 bits:

===========================  ========  ===========  ============  ===========
rule                         `Sobol`   mean cycles  `Bernoulli`   mean cycles
===========================  ========  ===========  ============  ===========
Margin(0.9)                  .965      51           .856          38
Margin(0.99)                 .970      134          .907          156
Margin(0.9) & Stability(2)   .972      87           .939          92
Stability(2)                 .969      34           .870          38
Stability(3)                 .969      61           .933          125
Cycles(16)                   .919      16           .691          16
Cycles(64)                   .974      64           .913          64
Cycles(1024)                 .970      1,024        .970          1,024
===========================  ========  ===========  ============  ===========

Of a Dask array a chunk of whole samples is a task that does all its checks, and label, cycles and margin are lazy
arrays of one graph: compute them together. JAX arrays are moved to the host, as JAX would compile for each number of
samples anew.

Faults
------
`with_faults` flips bits of the streams of all layers at a rate, each bit by itself. Longer streams bear more of them:

>>> [round(mlp.with_faults(rate).score(x, mlp.predict_float(x), 4096), 1) for rate in (0, 0.001, 0.5)]
[1.0, 1.0, 0.4]

The digits by the perceptron above, with `Sobol` streams, the mean of 5 seeds:

======  =====  =====  =====  =====  =====  =====
rate    0      0.001  0.003  0.01   0.03   0.1
======  =====  =====  =====  =====  =====  =====
N = 64  0.970  0.970  0.968  0.962  0.932  0.631
256     0.973  0.973  0.972  0.971  0.963  0.859
1,024   0.970  0.971  0.971  0.972  0.972  0.921
======  =====  =====  =====  =====  =====  =====

Lengths and errors
------------------
`lengths` gives each layer that encodes its own, and `search_lengths` finds short ones on calibration data:

>>> found = sc.layers.search_lengths(mlp, x, mlp.predict_float(x), 0.95)
>>> bool((mlp.predict(x, lengths=found.lengths) == mlp.predict_float(x)).mean() >= 0.95)
True

`explain` says where errors come from: the streams of a layer, the layers before it, or inputs above its scale.

>>> for layer in mlp.explain(x, 256):
...     print(f"error {layer.error:.3f}, own streams {layer.own:.3f}, theory {layer.theory:.3f}")
error 0.066, own streams 0.066, theory 0.066
error 0.167, own streams 0.110, theory 0.132
"""

from .activations import Clip, Logistic, ReLU, Softmax, Tanh
from .affine import Affine, Saturation
from .base import Layer
from .conv import SCConv2d
from .dense import SCDense, matmul
from .early_exit import Cycles, EarlyExit, Margin, Rule, Stability
from .lengths import search_lengths
from .models import load_model
from .network import SCSequential
from .perceptron import SCMLP
from .pooling import AvgPool2d, Flatten, MaxPool2d, Reshape, Transpose

__all__ = [
    "SCMLP",
    "Affine",
    "AvgPool2d",
    "Clip",
    "Cycles",
    "EarlyExit",
    "Flatten",
    "Layer",
    "Logistic",
    "Margin",
    "MaxPool2d",
    "ReLU",
    "Reshape",
    "Rule",
    "SCConv2d",
    "SCDense",
    "SCSequential",
    "Saturation",
    "Softmax",
    "Stability",
    "Tanh",
    "Transpose",
    "load_model",
    "matmul",
    "search_lengths",
]
