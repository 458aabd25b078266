"""Layers whose products are streams: the SC matrix product, dense layers, and networks of any layers in a row."""

from .dense import SCDense, matmul
from .network import SCSequential
from .perceptron import SCMLP

__all__ = ["SCMLP", "SCDense", "SCSequential", "matmul"]
