"""Time of a training step in our engines against what people write: ``python benchmarks/engines.py``.

Every contender trains the same network with Adam on the same 28x28 images, from the same initial weights and
in the same order, which its losses of the first epoch prove; the GPT, in PyTorch alone, on the same windows
of text. Each is a process of its own, as allocator settings and threads are a process's; they train in turns,
one at a time. Printed is the median over the rounds of a rival's time divided by ours in the same round
(above 1: ours is faster), and our milliseconds a step. The networks go without dropout, so that all do the
same work. Compilation and the first two epochs are outside.

torch, tensorflow, jax
    Our engines, with the frameworks' determinism flags on; the rivals go without.
torch tutorial
    A ``DataLoader``, ``zero_grad``, ``backward``, ``step``, ``.item()``.
torch tight
    Data resident as tensors, no synchronisation before the end of an epoch, and every trick that our engine
    knows: channels last, ReLU behind max pooling, a fused optimizer, memory that stays with the process.
model.fit
    Keras on TensorFlow: a cached, shuffled and prefetched pipeline, 16 steps an execution. Also with XLA.
jax tight
    A jitted step that gathers its own batch and gives its buffers away; no synchronisation in an epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from optbench import backends, matching
from optbench.backends.arrays import keep_pages, relu_after_pool
from optbench.datasets import registry
from optbench.datasets.base import TrialData, network, trial_data
from optbench.environment import Context
from optbench.models import zoo
from optbench.models.layers import BuiltLayer, Conv2D, Dense, Flatten, MaxPool2D, Model
from optbench.optimizers import Adam
from optbench.trial import Seeds, Split, TrialSpec, Workload

BATCH = 64
#: As in suites/tiny_gpt.yaml: 0.8 million weights.
GPT: dict[str, Any] = {"depth": 4, "width": 128, "heads": 4, "context": 64}
#: Layers, steps of an epoch, and epochs of a turn.
MODELS: dict[str, tuple[Any, int, int]] = {
    "mlp": (zoo.mlp(), 60, 8),
    "cnn_2c1d": (zoo.cnn_2c1d(dropout=0.0), 20, 1),
    "mosca_cnn": (zoo.mosca_cnn(dropout=0.0), 8, 1),
    "gpt": (zoo.gpt(**GPT), 8, 1),
}
#: Ours, the rival, and how many times faster ours must be: on mlp, on networks of images, on gpt.
BARS = (
    ("torch", "torch tutorial", 3.0, 2.5, None),
    ("torch", "torch tight", 1 / 1.02, 1 / 1.02, 1 / 1.02),
    ("tensorflow", "model.fit", 1.5, 1.0, None),
    ("tensorflow", "model.fit XLA", None, None, None),
    ("jax", "jax tight", None, None, None),
)
#: Largest relative difference of a loss of the first epoch.
AGREE = 1e-3


class Task:
    """What a contender trains: arrays, initial weights, order."""

    def __init__(self, name: str, steps: int) -> None:
        layers, usual, self.epochs = MODELS[name]
        steps = steps or usual
        self.text = name == "gpt"
        self.batch = 16 if self.text else BATCH
        self.model = Model(name=name, layers=layers)
        self.workload = Workload(
            dataset="shakespeare" if self.text else "mnist-mini",
            task="language_modelling" if self.text else "classification",
            model=self.model,
            batch_size=self.batch,
            epochs=1,
            split=Split(how="tail") if self.text else Split(),
            monitor="val_bits_per_byte" if self.text else "val_accuracy",
            context=GPT["context"] if self.text else None,
            train_eval=100,
        )
        dataset = registry.load(str(self.workload.dataset))
        self.data: TrialData = trial_data(dataset, self.workload, Seeds())
        self.built: tuple[BuiltLayer, ...] = network(self.workload, dataset.info)
        self.weights = matching.initial_weights(self.built, 0, "float32")
        self.rows = np.resize(self.data.train.rows, self.batch * steps)
        self.x, self.y = self.data.train.x[self.rows], self.data.train.y[self.rows].astype(np.int64)
        self.x = self.x.astype(np.int64) if self.text else (self.x / 255).astype(np.float32)


class Contender(NamedTuple):
    """Trains an epoch in the task's order and returns its losses, of each batch or their mean.

    ``epoch`` is the one that is timed, ``reset`` goes back to the start: where nothing is left to learn, the
    optimizer's averages become denormal numbers, which a processor is slow with.
    """

    first: Callable[[], Any]
    epoch: Callable[[], Any]
    reset: Callable[[], object]


def ours(task: Task, backend: str) -> Contender:
    spec = TrialSpec(
        workload=task.workload,
        optimizer=Adam(flavor="keras", eps=1e-7)
        if backend == "tensorflow"
        else Adam(),  # its epsilon lies elsewhere
        seeds=Seeds(),
        backend=backend,  # type: ignore[arg-type]
        device="cpu",
        precision="float32",
    )
    live = backends.engine(backend, Context.from_environment()).open(
        spec, task.built, task.data, task.weights
    )
    live.warm_up()
    print(json.dumps(dict(live.facts())), file=sys.stderr)
    epoch, start = partial(live.train_epoch, task.rows, 1), live.state()
    return Contender(epoch, epoch, lambda: live.restore(start))


def torch_layers(task: Task, *, tight: bool) -> Any:
    """A network of dense and convolutional layers as people write it."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for place, relu_last in relu_after_pool(task.built) if tight else [(p, False) for p in task.built]:
        layer, shape = place.layer, place.input_shape
        if isinstance(layer, Conv2D | Dense):
            made = (
                nn.Conv2d(shape[-1], place.output_shape[-1], layer.kernel)
                if isinstance(layer, Conv2D)
                else nn.Linear(shape[0], place.output_shape[0])
            )
            kernel = task.weights[f"{place.name}/kernel"]
            if kernel.ndim == 2 and len(layers) and isinstance(layers[-1], nn.Flatten):
                before = task.built[task.built.index(place) - 1].input_shape
                if len(before) == 3:  # ours are flattened as height, width, channels; PyTorch's otherwise
                    kernel = kernel.reshape(*before, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
            with torch.no_grad():
                made.weight.copy_(torch.from_numpy(kernel.copy()))
                made.bias.copy_(torch.from_numpy(task.weights[f"{place.name}/bias"]))
            layers.append(made)
            if layer.activation == "relu":
                layers.append(nn.ReLU())
        elif isinstance(layer, MaxPool2D):
            layers.append(nn.MaxPool2d(layer.size))
        else:
            layers.append(nn.Flatten())
        if relu_last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def torch_loop(task: Task, *, tight: bool) -> Contender:
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(int(os.environ["OPTBENCH_THREADS"]))
    if task.text:
        from gpt_loops import GPT as Network

        net: Any = Network(tokens=task.data.info.outputs, **GPT)
        net.load(task.weights)
    else:
        net = torch_layers(task, tight=tight)
    if tight:
        keep_pages()
        net = net if task.text else net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), fused=tight or None)
    start = [w.detach().clone() for w in net.parameters()]
    x = task.x if task.text else task.x.transpose(0, 3, 1, 2)
    inputs, targets = torch.from_numpy(x.copy()), torch.from_numpy(task.y)

    @torch.no_grad()
    def reset() -> None:
        for w, first in zip(net.parameters(), start, strict=True):
            w.copy_(first)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def step(a: Any, b: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(a), b.flatten())
        loss.backward()
        optimizer.step()
        return loss

    if not tight:
        loader = DataLoader(TensorDataset(inputs, targets), batch_size=task.batch, sampler=range(len(x)))

        def tutorial() -> list[float]:
            return [step(a, b).item() for a, b in loader]

        return Contender(tutorial, tutorial, reset)
    resident = inputs if task.text else inputs.contiguous(memory_format=torch.channels_last)
    order = torch.arange(len(x))

    def epoch() -> list[float]:
        found = [
            step(resident.index_select(0, rows), targets.index_select(0, rows)).detach()
            for rows in order.split(task.batch)
        ]
        losses: list[float] = torch.stack(found).tolist()
        return losses

    return Contender(epoch, epoch, reset)


def fit(task: Task, *, xla: bool) -> Contender:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OPTBENCH_THREADS"]))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    layers: list[Any] = [keras.Input(task.x.shape[1:])]
    for place in task.built:
        layer = place.layer
        if isinstance(layer, Conv2D):
            size = place.output_shape[-1]
            layers.append(keras.layers.Conv2D(size, layer.kernel, activation=layer.activation))
        elif isinstance(layer, Dense):
            layers.append(keras.layers.Dense(place.output_shape[0], activation=layer.activation))
        elif isinstance(layer, MaxPool2D):
            layers.append(keras.layers.MaxPool2D(layer.size))
        else:
            layers.append(keras.layers.Flatten())
    net = keras.Sequential(layers)
    net.set_weights(list(task.weights.values()))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(), loss, jit_compile=xla, steps_per_execution=16)
    source = tf.data.Dataset.from_tensor_slices((task.x, task.y)).cache()
    ordered = source.batch(BATCH).prefetch(4)
    shuffled = source.shuffle(len(task.y)).batch(BATCH).prefetch(4)

    def epoch(batches: Any) -> Any:
        return net.fit(batches, verbose=0).history["loss"]

    net.optimizer.build(net.trainable_variables)
    variables = [*net.variables, *net.optimizer.variables]
    start = [np.array(v) for v in variables]

    def reset() -> None:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)

    return Contender(partial(epoch, ordered), partial(epoch, shuffled), reset)


def jax_tight(task: Task) -> Contender:
    import jax
    import jax.numpy as jnp
    import optax
    from jax import lax

    def apply(weights: Any, z: Any) -> Any:
        for place in task.built:
            layer = place.layer
            if isinstance(layer, MaxPool2D):
                window = (1, layer.size, layer.size, 1)
                z = lax.reduce_window(z, -jnp.inf, lax.max, window, window, "VALID")
            elif isinstance(layer, Flatten):
                z = z.reshape(len(z), -1)
            elif isinstance(layer, Conv2D | Dense):
                kernel, bias = weights[f"{place.name}/kernel"], weights[f"{place.name}/bias"]
                if isinstance(layer, Conv2D):
                    numbers = ("NHWC", "HWIO", "NHWC")
                    z = lax.conv_general_dilated(z, kernel, (1, 1), "VALID", dimension_numbers=numbers)
                else:
                    z = z @ kernel
                z = jax.nn.relu(z + bias) if layer.activation == "relu" else z + bias
        return z

    solver = optax.adam(1e-3)
    images, labels = jnp.asarray(task.x), jnp.asarray(task.y)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Any, state: Any, rows: Any) -> tuple[Any, Any, Any]:
        def objective(weights: Any) -> Any:
            logits = apply(weights, images[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        loss, gradients = jax.value_and_grad(objective)(weights)
        updates, state = solver.update(gradients, state)
        return optax.apply_updates(weights, updates), state, loss

    held: list[Any] = []

    def reset() -> None:
        weights = {name: jnp.asarray(w) for name, w in task.weights.items()}
        held[:] = [weights, solver.init(weights)]

    order = np.arange(len(task.y)).reshape(-1, BATCH)

    def epoch() -> Any:
        losses = []
        for rows in order:
            *held[:], loss = step(*held, rows)
            losses.append(loss)
        return np.asarray(jnp.stack(losses))

    reset()
    return Contender(epoch, epoch, reset)


CONTENDERS: dict[str, Callable[[Task], Contender]] = {
    "torch": partial(ours, backend="torch"),
    "torch tutorial": partial(torch_loop, tight=False),
    "torch tight": partial(torch_loop, tight=True),
    "tensorflow": partial(ours, backend="tensorflow"),
    "model.fit": partial(fit, xla=False),
    "model.fit XLA": partial(fit, xla=True),
    "jax": partial(ours, backend="jax"),
    "jax tight": jax_tight,
}
FRAMEWORKS = {"torch": "torch", "model": "tensorflow", "tensorflow": "tensorflow", "jax": "jax"}


def serve(contender: str, model: str, steps: int) -> None:
    """Be a contender: the losses of an epoch, then the seconds of a turn for each line on standard input."""
    task = Task(model, steps)
    made = CONTENDERS[contender](task)
    print(json.dumps(np.atleast_1d(np.asarray(made.first(), float)).tolist()), flush=True)
    made.epoch()
    for _ in sys.stdin:
        made.reset()
        clock = time.perf_counter()
        for _ in range(task.epochs):
            made.epoch()
        print((time.perf_counter() - clock) / task.epochs / (len(task.y) // task.batch), flush=True)


class Process:
    """A contender in a process of its own."""

    def __init__(self, name: str, model: str, options: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--serve", name, "--model", model, "--steps", str(options.steps)]
        threads = str(options.threads)
        environment = {**os.environ, "OPTBENCH_THREADS": threads, "OMP_NUM_THREADS": threads}
        quiet = None if options.facts else subprocess.DEVNULL
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, env=environment
        )
        self.losses: list[float] = self._line()
        self.seconds: list[float] = []

    def turn(self) -> None:
        """Train, and note the seconds of a step."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(self._line())

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))}: ended early")  # type: ignore[arg-type]
        return json.loads(line)

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def difference(one: list[float], other: list[float]) -> float:
    """Largest relative difference of the losses, or of their means where only one has those of each batch."""
    a, b = np.array(one), np.array(other)
    if len(a) != len(b):
        a, b = np.atleast_1d(a.mean()), np.atleast_1d(b.mean())
    return float(np.abs(a / b - 1).max())


def compare(model: str, names: list[str], options: argparse.Namespace) -> bool:
    """Run the contenders of a model in turns and print how they did; False if a bar is missed."""
    if model == "gpt":
        names = [name for name in names if FRAMEWORKS[name.split()[0].split(".")[0]] == "torch"]
    contenders = {name: Process(name, model, options) for name in names}
    for _ in range(options.rounds):
        for contender in contenders.values():
            contender.turn()
    for contender in contenders.values():
        contender.close()
    cleared = True
    for own, rival, on_mlp, on_images, on_gpt in BARS:
        if own not in contenders or rival not in contenders:
            continue
        a, b = contenders[own], contenders[rival]
        ratios = [theirs / mine for mine, theirs in zip(a.seconds, b.seconds, strict=True)]
        low, ratio, high = np.percentile(ratios, [25, 50, 75])
        bar = {"mlp": on_mlp, "gpt": on_gpt}.get(model, on_images)
        apart = difference(a.losses, b.losses)
        same = apart < AGREE
        verdict = "" if bar is None else ("yes" if ratio >= bar else "NO")
        cleared = cleared and same and verdict != "NO"
        print(
            f"| {model} | {own} | {statistics.median(a.seconds) * 1e3:.3f} | {rival} "
            f"| {ratio:.2f} ({low:.2f} to {high:.2f}) | {'' if bar is None else f'{bar:.2f}'} | {verdict} "
            f"| {apart:.0e}{'' if same else ' DIFFERENT'} |",
            flush=True,
        )
    return cleared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=backends.installed(), action="append", help="may be repeated")
    parser.add_argument("--model", choices=MODELS, action="append", help="one model; may be repeated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=0, help="of an epoch; each model's own if not given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--facts", action="store_true", help="print what our engines and the others say")
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.model[0], options.steps)
        return
    wanted = options.backend or backends.installed()
    names = [name for name in CONTENDERS if FRAMEWORKS[name.split()[0].split(".")[0]] in wanted]
    print("| model | ours | ms a step | rival | rival / ours (quartiles) | bar | cleared | losses apart |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    results = [compare(model, names, options) for model in options.model or MODELS]
    if not all(results):
        raise SystemExit("not every bar is cleared")


if __name__ == "__main__":
    main()
