"""The generators that a job can be asked for, by name; light, so that the command line can list them."""

SNGS = {"sobol": True, "halton": False, "lfsr": True, "bernoulli": True, "shared": True}
"""Whether each generator depends on a seed. `jobs.infer.generators` makes them."""

SEEDLESS = [name for name, seeded in SNGS.items() if not seeded]

STOPS = {"margin": ("Margin", float), "stability": ("Stability", int), "cycles": ("Cycles", int)}
"""The rules of early exit: the class in `scdask.layers`, and the type of its number."""

CIRCUITS = ("edges", "gamma", "median")
IMAGE_SNGS = ("sobol", "lfsr", "bernoulli", "thermometer", "mistake")
"""What the circuits on images can be asked for; `jobs.images.generators` makes them."""
