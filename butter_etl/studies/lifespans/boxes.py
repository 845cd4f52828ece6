"""The network of an experiment as a row of layers, for pictures: the image, convolutions and pools, dense layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from butter_etl.engines import ConvNetwork
from butter_etl.errors import ButterError
from butter_etl.studies.experiments import Experiment
from butter_etl.studies.figures import Box
from butter_etl.studies.lifespans.experiments import HYPERPARAMETERS, ImageNetwork
from butter_etl.studies.lifespans.networks import network_of


def boxes(one: Experiment, derived: Mapping[str, Any]) -> tuple[Box, ...]:
    """Return the image and the layers of a network with their shapes; see `Figures`.

    Of a network on an image set that is not known here, or that cannot be built, there are none. What published tables
    do not tell is as it usually is.
    """
    del derived  # all follows from the parameters
    try:
        network = network_of(one if isinstance(one, ImageNetwork) else _described(one))
        return tuple(_boxes(network))
    except (ButterError, TypeError, ValueError):
        return ()


def _described(one: Experiment) -> ImageNetwork:
    """Return the network that an experiment of another task describes."""
    said: dict[str, Any] = {
        name: value for name, value in one.parameters().items() if name in HYPERPARAMETERS and value is not None
    }
    return ImageNetwork(**said)


def _boxes(network: ConvNetwork) -> Iterator[Box]:
    yield Box("image", "", (network.size, network.size, network.channels))
    for layer in network.layers:
        extra = ["ReLU"] if layer.relu else []
        extra += [f"dropout {layer.dropout:.2g}"] if layer.dropout else []
        if layer.is_dense:
            is_last = layer is network.layers[-1]
            yield Box("output" if is_last else "dense", ", ".join(extra), (layer.filters,))
            continue
        form = _window(layer.kernel, layer.stride, layer.padding)
        yield Box("convolution", ", ".join([form, *extra]), (layer.conv_size, layer.conv_size, layer.filters))
        if (pool := layer.pool) is not None:
            form = _window(pool.kernel, pool.stride, pool.padding)
            yield Box("maximum pool", form, (layer.out_size, layer.out_size, layer.filters))


def _window(kernel: int, stride: int, padding: int) -> str:
    rim = f", padding {padding}" if padding else ""
    return f"{kernel} x {kernel}" + (f", stride {stride}" if stride > 1 else "") + rim
