"""`python -m headrace.demo.digits --out DIR`: a small network for real digits, pruned, with samples to judge both by.

It is trained on scikit-learn's digits (1,797 images of 8 x 8 points that 13 people wrote) in seconds, on one thread and
from a fixed seed. 400 of the images are held out from the training and from the choice among variants: `--judge
FILE.onnx` tells how many of those a model gets right.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument

if TYPE_CHECKING:
    import torch

IMAGE, SCORES = "image", "scores"
MODEL, PRUNED, SAMPLES, HELD_OUT = "digits.onnx", "digits-pruned.onnx", "samples.npz", "held-out.npz"
SEED = 7
CHANNELS = 32
BATCH, EPOCHS, EPOCHS_PER_STEP = 64, 12, 4
RATIO, STEPS = 0.5, 3
TRAINING, SAMPLING = 797, 600
"""How many images train, and how many the optimiser may choose by; the rest is held out."""


@dataclass(frozen=True, slots=True)
class Images:
    """Attributes:
    image: [count, 1, 8, 8], 0 to 1.
    digit: [count].
    """

    image: NDArray[np.float32]
    digit: NDArray[np.int64]

    def save(self, path: Path) -> None:
        np.savez(path, image=self.image, digit=self.digit)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.judge:
            judge(options.judge, options.out / HELD_OUT)
        else:
            make(options.out)
    except HeadraceError as error:
        sys.stderr.write(f"headrace: {error.message}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"headrace: {error.filename or options.out}: {error.strerror or error}\n")
        return 2
    return 0


def make(out: Path) -> None:
    """Trains, prunes, and writes both models and the images. Raises FailedPrecondition where a library is missing."""
    _check_libraries()
    import torch

    from headrace.models import export, prune

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, samples, held_out = split()
    out.mkdir(parents=True, exist_ok=True)
    samples.save(out / SAMPLES)
    held_out.save(out / HELD_OUT)
    example = torch.from_numpy(samples.image[:1])
    module = network()
    train(module, training, EPOCHS)
    pruned = prune(
        module,
        example,
        ratio=RATIO,
        steps=STEPS,
        fine_tune=lambda smaller, _step: train(smaller, training, EPOCHS_PER_STEP),
    )
    print(f"pruned {pruned}\n")
    for name, each in ((MODEL, module), (PRUNED, pruned.module)):
        for suffix in (".onnx", ".pt2"):
            export(each, example, path=(out / name).with_suffix(suffix), inputs=[IMAGE], outputs=[SCORES])
        known, unseen = accuracy(each, samples), accuracy(each, held_out)
        counts = len(samples.digit), len(held_out.digit)
        print(f"{out / name}: right in {known:.4f} of {counts[0]} samples, in {unseen:.4f} of {counts[1]} held out")
    print(
        f"\nheadrace optimize {out / MODEL} --samples {out / SAMPLES} --labels digit --floor 0.95 "
        f"--variant pruned={out / PRUNED} --out {out / 'variants'}"
    )


def split() -> tuple[Images, Images, Images]:
    """To train with, to choose by, and held out: disjoint, the same every time."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(SEED).permutation(len(found.target))
    images, digits = (found.images[:, None] / 16).astype(np.float32), found.target.astype(np.int64)
    parts = np.split(order, [TRAINING, TRAINING + SAMPLING])
    training, samples, held_out = (Images(images[part], digits[part]) for part in parts)
    return training, samples, held_out


def network() -> torch.nn.Module:
    """Three convolutions; the scores are a row of ten."""
    from torch import nn

    module = nn.Sequential()
    for place, (taken, given) in enumerate([(1, CHANNELS), (CHANNELS, 2 * CHANNELS), (2 * CHANNELS, 2 * CHANNELS)], 1):
        module.add_module(f"conv{place}", nn.Conv2d(taken, given, 3, padding=1))
        module.add_module(f"norm{place}", nn.BatchNorm2d(given))
        module.add_module(f"relu{place}", nn.ReLU())
        if place > 1:
            module.add_module(f"pool{place}", nn.MaxPool2d(2))
    module.add_module("flatten", nn.Flatten())
    module.add_module("scores", nn.Linear(8 * CHANNELS, 10))
    return module


def train(module: torch.nn.Module, images: Images, epochs: int) -> None:
    """In place; the module is in eval mode afterwards."""
    import torch

    image, digit = torch.from_numpy(images.image), torch.from_numpy(images.digit)
    steps = epochs * -(-len(image) // BATCH)
    optimizer = torch.optim.AdamW(module.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for part in torch.randperm(len(image)).split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(image[part]), digit[part], label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()


def accuracy(module: torch.nn.Module, images: Images) -> float:
    """Share of right answers, 0 to 1."""
    import torch

    with torch.no_grad():
        scores = module(torch.from_numpy(images.image)).numpy()
    return float((scores.argmax(axis=1) == images.digit).mean())


def judge(models: Sequence[Path], held_out: Path) -> None:
    """Prints how many of the images held out each model gets right. Needs neither torch nor scikit-learn."""
    import onnxruntime

    with np.load(held_out, allow_pickle=False) as found:
        images = Images(found["image"], found["digit"])
    for path in models:
        if not path.is_file():
            raise InvalidArgument(f"--judge {path}: there is no such file")
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        [scores] = session.run([SCORES], {IMAGE: images.image})
        right = int((scores.argmax(axis=1) == images.digit).sum())
        print(f"{path}: right in {right} of {len(images.digit)} held out, {right / len(images.digit):.4f}")


def _check_libraries() -> None:
    missing = [name for name in ("torch", "torch_pruning", "onnxscript", "sklearn") if find_spec(name) is None]
    if missing:
        raise FailedPrecondition(
            f"the digits demo needs {', '.join(missing)}, which is not installed here; "
            "pip install 'headrace[torch]' scikit-learn"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace.demo.digits", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="models and samples go there")
    parser.add_argument(
        "--judge", type=Path, nargs="+", metavar="FILE.onnx", help="only judge these, by the images in DIR"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
