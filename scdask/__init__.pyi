from . import bitstream as bitstream
from . import chunked as chunked
from . import encoding as encoding
from . import errors as errors
from . import jit_kernels as jit_kernels
from . import layers as layers
from . import vector_ops as vector_ops
from .bitstream import Bitstream as Bitstream
from .bitstream import mux as mux
from .bitstream import open_zarr as open_zarr
from .bitstream import xnor as xnor
from .encoding import LFSR as LFSR
from .encoding import SNG as SNG
from .encoding import Bernoulli as Bernoulli
from .encoding import Halton as Halton
from .encoding import Sobol as Sobol
from .encoding import Thermometer as Thermometer
from .encoding import VanDerCorput as VanDerCorput
from .encoding import decode as decode
from .encoding import encode as encode
from .layers import SCMLP as SCMLP
from .layers import SCDense as SCDense
from .layers import matmul as matmul

__version__: str
