"""What augmentation costs beside the training that uses it: ``python benchmarks/augmentation.py``.

Trains ``cnn_2c2d_bn`` with Adam at batch 32 on two threads, on synthetic images in MNIST's shape, with and
without augmentation, and prints the extra time as a share of the plain training time. The bar is 30 %.
"""

import argparse
from dataclasses import replace

from optbench.backends.torch.engine import TorchEngine
from optbench.datasets import registry
from optbench.execution.protocol import run_trial
from optbench.models.layers import Model
from optbench.models.zoo import ZOO
from optbench.optimizers import Adam
from optbench.trial import Augment, Seeds, TrialSpec, Workload

EPOCHS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6_400)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    made = registry.synthetic("mnist", train=arguments.images, test=100)
    plain = Workload(
        dataset="mnist",
        model=Model(name="cnn_2c2d_bn", layers=ZOO["cnn_2c2d_bn"]()),
        batch_size=32,
        epochs=EPOCHS,
    )
    augmented = replace(plain, augment=Augment(rotation=10, shift=0.1, zoom=0.1))
    engine = TorchEngine(threads=arguments.threads)
    timings = []
    for workload in (plain, augmented):
        spec = TrialSpec(
            workload=workload,
            optimizer=Adam(lr=1e-4),
            seeds=Seeds(),
            backend="torch",
            device="cpu",
            precision="float32",
        )
        timings.append(run_trial(spec, engine, made, environment={}).timings)
    bare, step, augment = timings[0]["step"], timings[1]["step"], timings[1]["augment"]
    images = EPOCHS * arguments.images * 0.9
    print(f"steps without augmentation {bare:.2f} s ({images / bare:,.0f} images/s), with it {step:.2f} s")
    print(f"augmented pixels {augment:.3f} s ({images / augment:,.0f} images/s)")
    print(f"extra: {augment / bare:.1%} of the training time (bar: 30 %)")


if __name__ == "__main__":
    main()
