"""Networks as the engines take them, made of the columns of an experiment."""

from __future__ import annotations

from functools import lru_cache

from butter_etl.engines import Block, ConvNetwork, Descent, Pool
from butter_etl.errors import InfeasibleError, UsageError
from butter_etl.studies.lifespans.experiments import POOL, ImageNetwork
from butter_etl.studies.lifespans.images import ImageSet, images_of


@lru_cache(maxsize=4096)
def network_of(one: ImageNetwork) -> ConvNetwork:
    """Return the network of an experiment; raise InfeasibleError, with the layer and its numbers, for none."""
    images = images_of(one)
    _check_lists(one, images)
    pools = iter(zip(one.pool_kernels, one.pool_strides, one.pool_paddings, strict=True))
    blocks = tuple(
        Block(filters, kernel, stride, padding, code, Pool(*next(pools)) if code & POOL else None)
        for filters, kernel, stride, padding, code in zip(
            one.conv_filters, one.conv_kernels, one.conv_strides, one.conv_paddings, one.layer_types, strict=True
        )
    )
    network = ConvNetwork(
        channels=images.channels,
        size=images.size,
        blocks=blocks,
        widths=one.fc_filters,
        dropout_rate=one.dropout_rate,
        fc_dropout=tuple(flag == 1 for flag in one.fc_dropout_layers),
        fc_dropout_rate=one.fc_dropout_rate,
        fc_activation="relu" if one.fc_activation == "relu" else "none",
    )
    try:
        network.layers  # noqa: B018 (where it cannot be built, they say so)
    except UsageError as error:
        raise InfeasibleError(f"{one.describe()}: {error}") from error
    return network


def _check_lists(one: ImageNetwork, images: ImageSet) -> None:
    if not one.fc_filters:
        raise InfeasibleError("fc_filters is empty; its last entry is the width of the output")
    count, pooling = len(one.layer_types), sum(1 for code in one.layer_types if code & POOL)
    for name, wanted in (
        ("conv_kernels", count),
        ("conv_strides", count),
        ("conv_paddings", count),
        ("conv_filters", count),
        ("pool_kernels", pooling),
        ("pool_strides", pooling),
        ("pool_paddings", pooling),
        ("fc_dropout_layers", len(one.fc_filters) - 1),
    ):
        if len(getattr(one, name)) != wanted:
            raise InfeasibleError(f"{name} has {len(getattr(one, name))} entries, not {wanted}")
    if one.fc_filters[-1] != images.classes:
        raise InfeasibleError(
            f"fc_filters: the last is {one.fc_filters[-1]}; {one.dataset} has {images.classes} classes"
        )


def descent_of(one: ImageNetwork) -> Descent:
    """Return how an experiment descends."""
    return Descent(one.learning_rate, one.momentum, one.dampening, one.weight_decay)


def products(network: ConvNetwork) -> int:
    """Return the multiplications of one image's way through a network, those with padding included."""
    return sum(layer.fan_in * layer.filters * layer.conv_size**2 for layer in network.layers)
