"""Verilog of machines and generators, simulated by Icarus Verilog: its bits are those of scdask."""

import importlib
import inspect
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scdask as sc
from scdask import LFSR, Bernoulli, Bitstream, BitstreamError, Halton, Machine, Sobol, Thermometer, VanDerCorput
from scdask.core.gates import GATES

needs_iverilog = pytest.mark.component("iverilog")
RTL = Path(__file__).parent / "rtl"
CYCLES, PAUSED = 4133, 700  # cycles after the first reset, and, with pauses, after the second


# the machines of the package

# A cached function of the package that makes a Machine, and says so (`-> Machine`), is found by itself. One that takes
# arguments needs a row here, by its name: the arguments of each machine that is simulated.
ARGUMENTS = {
    "scdask.arithmetic.dividers.iscbdiv_machine": [(1,), (3,)],
    "scdask.arithmetic.dividers.sqrt_machine": [(), ("jk",), ("emitting", "bipolar")],
    "scdask.arithmetic.functions.abs_machine": [(4,), (8,)],
    "scdask.arithmetic.functions.linear_gain_machine": [(4,), (16,)],
    "scdask.arithmetic.functions.relu_machine": [(4,), (16,)],
    "scdask.arithmetic.functions.sexp_machine": [(4, 1), (16, 2)],
    "scdask.arithmetic.functions.stanh_machine": [(4,), (8,), (32,)],
    "scdask.correlation.circuits.desynchronizer": [(1,), (3,)],
    "scdask.correlation.circuits.shuffle_buffer": [(2,), (4,)],
    "scdask.correlation.circuits.synchronizer": [(1,), (3,)],
}


def machines_of_the_package():
    """All machines that a module has, and those that its cached functions make, by name."""
    root = Path(sc.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if not re.search(r"-> Machine:|= Machine[.(]", path.read_text(encoding="utf-8")):
            continue
        module = importlib.import_module(".".join(("scdask", *path.relative_to(root).with_suffix("").parts)))
        for name, value in vars(module).items():
            whole = f"{module.__name__}.{name}"
            if isinstance(value, Machine):
                yield whole, value
            elif (
                hasattr(value, "cache_info")
                and value.__module__ == module.__name__
                and value.__wrapped__.__annotations__.get("return") == "Machine"
            ):
                needs = inspect.signature(value).parameters
                assert whole in ARGUMENTS or not needs, f"ARGUMENTS of tests/test_hardware.py has no row for {whole}"
                for arguments in ARGUMENTS.get(whole, [()]):
                    yield f"{whole}{arguments}", value(*arguments)


def random_machine(rng, states, inputs, outputs):
    shape = (states, 2**inputs)
    written = rng.integers(0, 2, (2, *shape) if outputs == 2 else shape)
    return Machine(rng.integers(0, states, shape), written, int(rng.integers(states)))


def examples():
    rng = np.random.default_rng(19)
    toggle = Machine([[0, 1], [1, 0]], [[0, 0], [0, 1]])
    states = [1, 1, 2, 3, 4, 5, 255, 256, *(int(256**u) for u in rng.random(42))]
    random = {
        f"random {i}, {s} states": random_machine(rng, s, 1 + i % 3, 1 + i // 3 % 2) for i, s in enumerate(states)
    }
    return {"toggle": toggle, "cordiv": CORDIV, "stanh": STANH, **random, **dict(machines_of_the_package())}


CORDIV = Machine.from_step(lambda q, x, y: (x if y else q, x if y else q), states=2, inputs=2)
STANH = Machine.from_step(lambda s, x: (min(max(s + 2 * x - 1, 0), 7), int(s >= 4)), states=8, start=4)

GENERATORS = [
    *((LFSR(width), CYCLES) for width in (2, 3, 8, 16, 24, 53)),
    (LFSR(16, (16, 5, 3, 2), seed=0x1D0F, shift="right"), 255),
    (LFSR(8, seed=77, shift="right"), 4096),
    (LFSR(2, shift="right"), 100),
    *((Thermometer(), length) for length in (1, 2, 100, 4096, CYCLES)),
    *((VanDerCorput(), length) for length in (1, 2, 3, 100, 4096, CYCLES)),
    *((Sobol(dimension), 4096) for dimension in (1, 2, 3, 40, 900)),
    *((Sobol(3), length) for length in (1, 2, 3, 100, 255, CYCLES, 2**15)),
    (Sobol(1, seed=0), 1024),
    (Sobol(5, seed=7), 1000),
    (Sobol(5, seed=7, rounding="up"), CYCLES),
    (Sobol(2, rounding="up"), 256),
    (VanDerCorput(rounding="up"), 3000),
    (Thermometer(rounding="up"), 3000),
    *((Halton(base), CYCLES) for base in (2, 3, 5, 17, 541)),
    (Halton(3), 1),
    (Halton(3), 243),
    (Halton(7, rounding="up"), 500),
]
PROBABILITIES = (0.3, 0.0, 0.8, 1.0)  # of generators in turn; the numbers are compared with many more


# the simulation


@dataclass
class Design:
    """Modules on one clock, and the wires of which each cycle is written down."""

    sources: list = field(default_factory=list)
    body: list = field(default_factory=list)
    written: dict = field(default_factory=dict)  # names of values, and (wire, bits) of each

    def add(self, module, outputs, keep=None, **inputs):
        """An instance; `outputs` are the bits of each, and `keep` their names in what is written down."""
        place = len(self.body)
        wires = {port: f"{port}_{place}" for port in outputs}
        declared = "".join(f"wire [{bits - 1}:0] {wires[port]}; " for port, bits in outputs.items())
        connected = ", ".join(f".{port}({wire})" for port, wire in {**inputs, **wires}.items())
        self.body.append(f"{declared}{module} instance_{place} ({connected});")
        for port, name in (keep or {}).items():
            self.written[name] = (wires[port], outputs[port])
        return wires

    def simulate(self, folder, stimuli):
        """Each value of `written` in each cycle, as int64; the stimuli are bits (cycles, 5) of rst, enable, x, y, z."""
        np.savetxt(folder / "stimuli.txt", stimuli, "%d", delimiter="")
        bench = "\n".join(
            [
                "module bench;",
                "reg clk, rst, enable, x, y, z;",
                f"reg [4:0] stimuli [0:{len(stimuli) - 1}];",
                "integer t;",
                *self.body,
                "initial begin",
                '    $readmemb("stimuli.txt", stimuli);',
                "    clk = 0;",
                f"    for (t = 0; t < {len(stimuli)}; t = t + 1) begin",
                "        {rst, enable, x, y, z} = stimuli[t];",
                f'        #1 $display("%b", {{{", ".join(wire for wire, _ in self.written.values())}}});',
                "        clk = 1;",
                "        #1 clk = 0;",
                "    end",
                "    $finish;",
                "end",
                "endmodule",
            ]
        )
        (folder / "design.v").write_text("\n".join([*self.sources, bench]))
        by_hand = sorted(map(str, RTL.glob("*.v")))
        run("iverilog", "-g2001", "-Wall", "-s", "bench", "-o", "design", "design.v", *by_hand, cwd=folder)
        lines = run("vvp", "-n", "design", cwd=folder).split()
        digits = np.array(lines[1:]).view(np.uint32).reshape(len(stimuli) - 1, -1) - ord("0")
        assert (digits <= 1).all(), "a value is not known after the reset"
        values, start = {}, 0
        for name, (_, bits) in self.written.items():
            values[name] = digits[:, start : start + bits] @ (1 << np.arange(bits)[::-1])
            start += bits
        return values


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ON = {"clk": "clk", "rst": "rst", "enable": "enable"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The stimuli, from the cycle after the first reset on, and the values of all modules: one simulation."""
    rng = np.random.default_rng(1)
    stimuli = (rng.random((1 + CYCLES + 1 + PAUSED, 5)) < [0, 0.7, 0.5, 0.6, 0.4]).astype(np.int64)
    stimuli[: 1 + CYCLES, 1] = 1
    stimuli[[0, 1 + CYCLES], 0] = 1
    design = Design()
    for i, (name, machine) in enumerate(examples().items()):
        design.sources.append(machine.to_verilog(f"machine_{i}"))
        outputs = ["out"] if machine.outputs == 1 else ["out0", "out1"]
        keep = {port: (name, j) for j, port in enumerate(outputs)}
        inputs = {port: port for port in "xyz"[: machine.inputs]}
        design.add(f"machine_{i}", dict.fromkeys(outputs, 1), keep, **ON, **inputs)
    for i, (sng, length) in enumerate(GENERATORS):
        text = sng.to_verilog(f"sng_{i}", length)
        bits = int(re.search(r"\[(\d+):0\] number", text)[1]) + 1
        design.sources.append(text)
        threshold = f"{bits + 1}'d{sng.threshold(PROBABILITIES[i % 4], length)}"
        keep = {port: (i, port) for port in ("out", "number")}
        design.add(f"sng_{i}", {"out": 1, "number": bits}, keep, **ON, threshold=threshold)
    design.add("and2", {"out": 1}, {"out": "and"}, a="x", b="y")
    design.add("xnor2", {"out": 1}, {"out": "xnor"}, a="x", b="y")
    design.add("mux2", {"out": 1}, {"out": "mux"}, select="x", a="y", b="z")
    design.add("apc", {"count": 16}, {"count": "apc"}, **ON, bits="{x, y, z}")
    design.add("cordiv", {"out": 1}, {"out": "cordiv by hand"}, **ON, x="x", y="y")
    design.add("stanh", {"out": 1}, {"out": "stanh by hand"}, **ON, x="x")
    for kind, row in GATES.items():
        inputs = dict(zip(row.inputs, "xyz", strict=False))
        ports = "".join(f"input wire {port}, " for port in inputs)
        design.sources.append(f"module row_{kind} ({ports}output wire out);\nassign out = {row.text};\nendmodule\n")
        design.add(f"row_{kind}", {"out": 1}, {"out": ("gate", kind)}, **inputs)
    # A product of two streams with its counter; and one whose second generator moves where the first stream is 1.
    design.sources += [Sobol(d).to_verilog(f"sobol_{d}", 4096) for d in (1, 2)]
    thresholds = [f"13'd{Sobol(d).threshold(p, 4096)}" for d, p in ((1, 0.75), (2, 0.4))]
    first, second = (
        design.add(f"sobol_{d}", {"out": 1, "number": 12}, **ON, threshold=threshold)["out"]
        for d, threshold in zip((1, 2), thresholds, strict=True)
    )
    product = design.add("and2", {"out": 1}, a=first, b=second)["out"]
    design.add("apc #(.STREAMS(1))", {"count": 16}, {"count": "product"}, **ON, bits=product)
    again = {**ON, "enable": f"(enable & {first})"}
    moved = design.add("sobol_1", {"out": 1, "number": 12}, **again, threshold=thresholds[1])["out"]
    design.add("and2", {"out": 1}, {"out": "uMUL"}, a=first, b=moved)
    return stimuli[1:], design.simulate(tmp_path_factory.mktemp("verilog"), stimuli)


def bits_to_stream(bits):
    return Bitstream(sc.vector_ops.pack_bitstream(bits.astype(np.uint8)), len(bits))


def stretches(stimuli):
    """The cycles after the first reset; and, after the second, those in which the modules are enabled."""
    yield np.arange(CYCLES)
    yield CYCLES + 1 + np.flatnonzero(stimuli[CYCLES + 1 :, 1])


# the tests


@needs_iverilog
def test_machines_give_the_bits_of_run(simulated):
    stimuli, values = simulated
    for cycles in stretches(stimuli):
        inputs = [bits_to_stream(stimuli[cycles, column]) for column in (2, 3, 4)]
        for name, machine in examples().items():
            found = sc.run(machine, *inputs[: machine.inputs])
            for j, stream in enumerate([found] if machine.outputs == 1 else found):
                np.testing.assert_array_equal(values[name, j][cycles], stream.unpack(), err_msg=f"{name}, output {j}")
    for name in ("cordiv", "stanh"):
        np.testing.assert_array_equal(values[name, 0], values[f"{name} by hand"])


@needs_iverilog
def test_generators_give_the_bits_of_encode(simulated):
    stimuli, values = simulated
    rng = np.random.default_rng(2)
    for i, (sng, length) in enumerate(GENERATORS):
        numbers = sng.numbers(length, 0, min(length, 5000))
        p = np.concatenate([rng.random(100), np.arange(17) / 16, rng.choice(numbers, 30)])
        p = np.concatenate([p, np.nextafter(p, 0), np.nextafter(p, 1)]).clip(0, 1)
        expected = np.concatenate(
            [
                sc.encode(v, length, sng=sng, polarity=polarity).bits[:5000].unpack()
                for v, polarity in ((p, "unipolar"), (2 * p - 1, "bipolar"))
            ]
        )
        thresholds = np.append(sng.threshold(p, length), sng.threshold(2 * p - 1, length, "bipolar"))
        stream = sc.encode(PROBABILITIES[i % 4], length, sng=sng).unpack()
        for cycles in stretches(stimuli):
            places = cycles[:length]
            found = values[i, "number"][places] < thresholds[:, None]
            np.testing.assert_array_equal(found, expected[:, : len(places)], err_msg=f"{sng}, {length} bits")
            np.testing.assert_array_equal(values[i, "out"][places], stream[: len(places)], err_msg=f"{sng}, out")


@needs_iverilog
def test_counters_begin_anew(simulated):
    _, values = simulated
    for i, (sng, length) in enumerate(GENERATORS):
        if isinstance(sng, LFSR) or length > CYCLES:
            continue
        base = getattr(sng, "base", 2)
        period = next(base**digits for digits in range(1, 14) if base**digits >= length)
        numbers = values[i, "number"][:CYCLES]
        np.testing.assert_array_equal(numbers[period:], numbers[:-period])
        assert len(np.unique(numbers[:period])) == len(numbers[:period])


@needs_iverilog
def test_gates_and_counters(simulated):
    stimuli, values = simulated
    x, y, z = (bits_to_stream(stimuli[:, column]) for column in (2, 3, 4))
    for gate, expected in (("and", x & y), ("xnor", sc.xnor(x, y)), ("mux", sc.mux(x, y, z))):
        for name in (gate, ("gate", gate)):
            np.testing.assert_array_equal(values[name], expected.unpack())
    for gate, expected in (("or", x | y), ("xor", x ^ y), ("not", ~x), ("mask", x)):
        np.testing.assert_array_equal(values["gate", gate], expected.unpack())
    n = 4096
    assert values["apc"][n] == sum(int(stream.bits[:n].popcount()) for stream in (x, y, z))
    a, b = sc.encode(0.75, n, sng=Sobol(1)), sc.encode(0.4, n, sng=Sobol(2))
    assert values["product"][n] == (a & b).popcount()
    product, weight = a.unpack(), sc.encode(0.4, n, sng=Sobol(1)).unpack()
    product[product == 1] = weight[: product.sum()]
    np.testing.assert_array_equal(values["uMUL"][:n], product)


@given(
    st.sampled_from([Sobol(2), Sobol(3, seed=1), VanDerCorput(), Thermometer()]),
    st.integers(0, 12),
    st.lists(st.floats(0, 1), min_size=1, max_size=9),
)
def test_a_threshold_is_the_number_of_ones(sng, m, p):
    np.testing.assert_array_equal(sng.threshold(p, 2**m), sc.encode(p, 2**m, sng=sng).popcount())


@pytest.mark.parametrize("name", ["", "1st", "a-b", "é", "module", "x y", "a\n", "always", None, 3])
def test_names_are_identifiers(name):
    for write in (STANH.to_verilog, lambda name: Sobol(1).to_verilog(name, 256)):
        with pytest.raises(BitstreamError, match="no keyword"):
            write(name)


class Own(Sobol):
    def numbers(self, length, start, stop):
        return np.zeros(stop - start)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bernoulli(3).to_verilog("a", 64), r"not of Bernoulli\(seed=3, shared=False\)"),
        (lambda: Bernoulli(3).threshold(0.5, 64), "not of Bernoulli"),
        (lambda: Own(1).to_verilog("a", 64), "not of Own"),
        (lambda: LFSR(8, spread=True).to_verilog("a", 64), "a register for each element"),
        (lambda: LFSR(8, spread=True).threshold(0.5, 64), "a register for each element"),
        (lambda: Sobol(1).to_verilog("a", 0), "length"),
        (lambda: Sobol(1).threshold(0.5, 2**24 + 1), "16777217"),
        (lambda: Sobol(1).threshold(1.5, 64), "1.5"),
        (lambda: Sobol(1).threshold("a", 64), "real numbers"),
        (lambda: Sobol(1).threshold(-0.5, 64), "unipolar"),
        (lambda: Sobol(1).threshold(0.5, 64, "split"), "split"),
    ],
)
def test_what_has_no_verilog_is_a_sentence(call, message):
    with pytest.raises(BitstreamError, match=message):
        call()
