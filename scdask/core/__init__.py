"""The contract: what words, gates, lengths and generators are, and how an array finds the kernels of its library.

For contributors: `contract` has the operations that each backend implements, `dispatch` the table of backends, `gates`
a row for each gate, `machines` the tables of circuits with memory, `checks` what arguments must be, `words` how bits
lie in words.

- A gate is a row of `gates.GATES` and a function in `vector_ops.gates`, which `vector_ops` hands on; it takes `length`
  if the gate does not keep padding 0. A function for streams, such as `xnor`, goes into `bitstream`.
- A machine is a step, in a function that gives it to `Machine.from_step`, and a function for streams with a docstring
  beside it, in `arithmetic` or `correlation`: `arithmetic.functions.stanh` is a model. Every backend then runs it, on
  chunks too, and tests/test_hardware.py finds it, and compares its Verilog.
- A generator is a class in `generators`, and its name in `scdask/__init__.py` and its stub; `generators.SNG` says what
  it has. For `--sng` it also has a line in `jobs.names` and one in `jobs.infer`.
- A backend is a row of `dispatch.BACKENDS` and a package, for which `jit_kernels` is the smallest model: its `device`
  calls `dispatch.implementing`, which gives the decorator for its kernels, one for each name in
  `contract.PRIMITIVES`, and its `__init__` imports the files of the kernels. pyproject.toml has its extra and its
  floor.
- A layer is a class that has what `layers.network.Layer` says.

`pip install -e ".[dev]"` brings what checks a change: `ruff check`, `mypy`, `lint-imports` and `pytest`, whose
tests/test_dispatch.py fails where a backend lacks an operation.
"""
