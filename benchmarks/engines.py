"""Time of a training step in our engines against what people write: ``python benchmarks/engines.py``.

Every rival trains the same network with Adam on the same 28x28 images, in one process, one after the other in
turns; printed is the median over the rounds of the rival's time divided by ours in the same round (above 1:
ours is faster), and our milliseconds a step. The networks go without dropout, so that all do the same work.
Compilation and the first epoch are outside. Our engine runs with the framework's determinism flags on, the
rivals without them; "ours, flags off" shows what the flags cost.

tutorial
    TensorFlow and JAX: a Python loop over batches around one compiled step. PyTorch: a ``DataLoader``.
skilled
    TensorFlow: ``model.fit`` with and without XLA, a cached, shuffled and prefetched ``tf.data`` pipeline, 16
    steps an execution. PyTorch and JAX: data resident as tensors, the order drawn once an epoch, no
    synchronisation before its end; JAX's step gathers its own batch and gives its buffers away.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import TrialData, cut
from optbench.models import zoo
from optbench.models.layers import BuiltLayer, Conv2D, Dense, Flatten, MaxPool2D, Model, build
from optbench.optimizers import Adam
from optbench.trial import Seeds, Split, TrialSpec, Workload

#: Layers, batch size and steps of an epoch.
MODELS = {
    "mlp": (zoo.mlp(), 64, 60),
    "cnn_2c1d": (zoo.cnn_2c1d(dropout=0.0), 64, 20),
    "mosca_cnn": (zoo.mosca_cnn(dropout=0.0), 64, 8),
}
Epoch = Callable[[], object]


def ours(backend: str, model: Model, batch: int, data: TrialData, steps: int) -> Epoch:
    spec = TrialSpec(
        workload=Workload(dataset="mnist-mini", model=model, batch_size=batch, epochs=1),
        optimizer=Adam(),
        seeds=Seeds(),
        backend=backend,  # type: ignore[arg-type]
        device="cpu",
        precision="float32",
    )
    built = build(model, data.info.shape, 10)
    weights = matching.initial_weights(built, 0, "float32")
    live = backends.engine(backend).open(spec, built, data, weights)
    live.warm_up()
    rows = data.train.rows[: steps * batch]
    return lambda: live.train_epoch(rows, 1)


def torch_rivals(built: tuple[BuiltLayer, ...], batch: int, x: Any, y: Any) -> dict[str, Epoch]:
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def network() -> tuple[nn.Module, torch.optim.Optimizer]:
        layers: list[nn.Module] = []
        for place in built:
            layer, shape = place.layer, place.input_shape
            if isinstance(layer, Conv2D):
                layers += [nn.Conv2d(shape[-1], place.output_shape[-1], layer.kernel), nn.ReLU()]
            elif isinstance(layer, MaxPool2D):
                layers.append(nn.MaxPool2d(layer.size))
            elif isinstance(layer, Flatten):
                layers.append(nn.Flatten())
            else:
                layers += [nn.Linear(shape[0], place.output_shape[0]), nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
        return net, torch.optim.Adam(net.parameters())

    images, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)
    net, optimizer = network()
    loader = DataLoader(TensorDataset(images, labels), batch_size=batch, shuffle=True)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, a: Any, b: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(a), b)
        loss.backward()
        optimizer.step()
        return loss

    def tutorial() -> float:
        return sum(step(net, optimizer, a, b).item() for a, b in loader)

    tight_net, _ = network()
    tight_net = tight_net.to(memory_format=torch.channels_last)
    tight_optimizer = torch.optim.Adam(tight_net.parameters(), fused=True)
    resident = images.contiguous(memory_format=torch.channels_last)

    def tight() -> object:
        order = torch.randperm(len(labels))
        found = [
            step(tight_net, tight_optimizer, resident[rows], labels[rows]).detach()
            for rows in order.split(batch)
        ]
        return torch.stack(found).tolist()

    return {"tutorial": tutorial, "skilled": tight}


def tensorflow_rivals(built: tuple[BuiltLayer, ...], batch: int, x: Any, y: Any) -> dict[str, Epoch]:
    import keras
    import tensorflow as tf

    def network() -> Any:
        layers: list[Any] = [keras.Input(x.shape[1:])]
        for place in built:
            layer, last = place.layer, place is built[-1]
            activation = None if last else "relu"
            if isinstance(layer, Conv2D):
                layers.append(
                    keras.layers.Conv2D(place.output_shape[-1], layer.kernel, activation=activation)
                )
            elif isinstance(layer, MaxPool2D):
                layers.append(keras.layers.MaxPool2D(layer.size))
            elif isinstance(layer, Flatten):
                layers.append(keras.layers.Flatten())
            else:
                layers.append(keras.layers.Dense(place.output_shape[0], activation=activation))
        return keras.Sequential(layers)

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net, optimizer = network(), keras.optimizers.Adam()
    pipeline = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y)).batch(batch)

    @tf.function  # type: ignore[untyped-decorator]
    def step(a: Any, b: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(b, net(a, training=True))
        variables = net.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def tutorial() -> float:
        return sum(float(step(a, b)) for a, b in pipeline)

    rivals: dict[str, Epoch] = {"tutorial": tutorial}
    cached = tf.data.Dataset.from_tensor_slices((x, y)).cache().shuffle(len(y)).batch(batch).prefetch(4)
    for jit in (False, True):
        fitted = network()
        fitted.compile(keras.optimizers.Adam(), loss_of, jit_compile=jit, steps_per_execution=16)
        rivals["skilled, XLA" if jit else "skilled"] = lambda m=fitted: m.fit(cached, verbose=0)  # type: ignore[misc]
    return rivals


def jax_rivals(built: tuple[BuiltLayer, ...], batch: int, x: Any, y: Any) -> dict[str, Epoch]:
    import jax
    import jax.numpy as jnp
    import optax
    from jax import lax

    def apply(weights: Any, z: Any) -> Any:
        for place in built:
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
                z = z + bias if place is built[-1] else jax.nn.relu(z + bias)
        return z

    solver = optax.adam(1e-3)

    def step(weights: Any, state: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
        def objective(weights: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(apply(weights, a), b).mean()

        loss, gradients = jax.value_and_grad(objective)(weights)
        updates, state = solver.update(gradients, state)
        return optax.apply_updates(weights, updates), state, loss

    first = matching.initial_weights(built, 0, "float32")
    plain, images, labels = jax.jit(step), jnp.asarray(x), jnp.asarray(y)

    @partial(jax.jit, donate_argnums=(0, 1))
    def gathered(weights: Any, state: Any, rows: Any) -> tuple[Any, Any, Any]:
        return step(weights, state, images[rows], labels[rows])

    def fresh() -> list[Any]:
        weights = {name: jnp.asarray(w) for name, w in first.items()}
        return [weights, solver.init(weights)]

    def orders() -> list[Any]:
        order = np.random.default_rng(0).permutation(len(y))
        return [order[start : start + batch] for start in range(0, len(y), batch)]

    tutorial_held, skilled_held = fresh(), fresh()

    def tutorial() -> float:
        total = 0.0
        for rows in orders():
            *tutorial_held[:], loss = plain(*tutorial_held, x[rows], y[rows])
            total += float(loss)
        return total

    def skilled() -> object:
        losses = []
        for rows in orders():
            *skilled_held[:], loss = gathered(*skilled_held, rows)
            losses.append(loss)
        return np.asarray(jnp.stack(losses))

    return {"tutorial": tutorial, "skilled": skilled}


def switch_determinism(backend: str, on: bool) -> None:
    """Switch a framework's flags; our engine sets them, and the rivals go without."""
    if backend == "torch":
        import torch

        torch.use_deterministic_algorithms(on, warn_only=True)
    elif backend == "tensorflow":
        from tensorflow.python.framework import config

        (config.enable_op_determinism if on else config.disable_op_determinism)()


RIVALS = {"torch": torch_rivals, "tensorflow": tensorflow_rivals, "jax": jax_rivals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=RIVALS, action="append", help="one framework; may be repeated")
    parser.add_argument("--model", choices=MODELS, action="append", help="one model; may be repeated")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    dataset = registry.load("mnist-mini")
    data = cut(dataset, Split(), Seeds(), train_eval=100)
    for backend in options.backend or backends.installed():
        for name in options.model or MODELS:
            layers, batch, steps = MODELS[name]
            model = Model(name=name, layers=layers)
            rows = data.train.rows[: batch * steps]
            x = (data.train.x[rows] / 255).astype(np.float32)
            y = data.train.y[rows].astype(np.int64)
            epochs = {"ours": ours(backend, model, batch, data, steps)}
            if backend != "jax":
                epochs["ours, flags off"] = ours(backend, model, batch, data, steps)
            switch_determinism(backend, False)
            epochs |= RIVALS[backend](build(model, data.info.shape, 10), batch, x, y)
            times: dict[str, list[float]] = {rival: [] for rival in epochs}
            for turn in range(options.rounds + 1):
                for rival, epoch in epochs.items():
                    switch_determinism(backend, rival == "ours")
                    clock = time.perf_counter()
                    epoch()
                    if turn:
                        times[rival].append(time.perf_counter() - clock)
            own = times.pop("ours")
            print(
                f"{backend:10} {name:10} ours {statistics.median(own) / steps * 1e3:8.3f} ms a step", end=""
            )
            for rival, taken in times.items():
                ratio = statistics.median(a / b for a, b in zip(taken, own, strict=True))
                print(f"   {rival} {ratio:.2f}x", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
