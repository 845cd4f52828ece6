"""What the activation and the width of a small network do to how it learns handwritten digits."""

from collections.abc import Iterator
from typing import Annotated

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import butter_etl as be

ACTIVATIONS = ("ReLU", "Tanh", "GELU")


def train(
    *,
    activation: Annotated[str, be.Axis(check=be.OneOf(ACTIVATIONS))],
    width: Annotated[int, be.Axis(check=be.Between(1, 4096))],
    learning_rate: float = 0.01,
    epochs: int = 20,
    device: str,
    resume: be.Resume,
) -> Iterator[dict[str, float]]:
    """Networks with one hidden layer, trained by Adam on four fifths of the digits that scikit-learn carries."""
    images, digits = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32, device=device)
    y = torch.tensor(digits, device=device)
    learned, tested = torch.randperm(len(x)).split([1440, 357])
    layers = torch.nn.Linear(64, width), getattr(torch.nn, activation)(), torch.nn.Linear(width, 10)
    model = torch.nn.Sequential(*layers).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(resume.keep(model=model, optimizer=optimizer), epochs):
        total = 0.0
        for rows in learned[torch.randperm(len(learned))].split(64):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        with torch.no_grad():
            outputs = model(x[tested])
            yield {
                "loss": total / len(learned),
                "val_loss": cross_entropy(outputs, y[tested]).item(),
                "val_accuracy": (outputs.argmax(1) == y[tested]).float().mean().item(),
            }


STUDY = be.study_of(
    train,
    name="activations",
    histories={"val_loss": "test loss", "val_accuracy": "test accuracy", "loss": "training loss"},
    points="epochs",
    keys=["activation", "width"],
    best={"val_loss": "min", "val_accuracy": "max"},
    seconds=2.0,
    title="Activations and widths on digits",
)
