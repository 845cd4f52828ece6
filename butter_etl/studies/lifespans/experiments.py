"""An experiment of nn_lifespans: one network with all that was drawn for it, the seed left out.

The parameters are those of the published tables, under names of this package, and two that the tables do not tell:
how the validation set is measured, and what stands between fully connected layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec

from butter_etl.studies.axes import Above, Axis, Between, OneOf, hyperparameters
from butter_etl.studies.experiments import Experiment, OwnExperiment
from butter_etl.studies.identity import Value, to_json

TASK: Final = "nn_lifespans.train"
TASK_VERSION: Final = 1
#: What made the runs of published tables.
TABLE_TASK: Final = "nn_lifespans.published"
#: The three published image sets, as the tables write them, and one that every installation has.
PUBLISHED_SETS: Final = ("CIFAR100", "FashionMNIST", "SVHN")
IMAGE_SETS: Final = (*PUBLISHED_SETS, "digits")
#: ``published``: whole batches only, divided by their number rounded up; ``full``: the means over all images.
VAL_MODES: Final = ("full", "published")
FC_ACTIVATIONS: Final = ("none", "relu")
#: Measuring points a full epoch.
POINTS_PER_EPOCH: Final = 2
#: The bits of a block's code: what follows the convolution, in this order but for pooling, which is last.
RELU, POOL, DROPOUT = 1, 2, 4

Fractions = tuple[float, ...]
Wholes = tuple[int, ...]


class OwnImages(msgspec.Struct, frozen=True):
    """The identity of a user's own image set in an experiment: its content, by hash and extent.

    ``sha256`` is that of `butter_etl.studies.lifespans.images.Images`, in hexadecimal. Images are square, ``size``
    wide; ``train`` of them are learned from, ``test`` measured on, and their pixels go up to ``brightest``.
    """

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    channels: Annotated[int, msgspec.Meta(ge=1)]
    size: Annotated[int, msgspec.Meta(ge=1)]
    classes: Annotated[int, msgspec.Meta(ge=2)]
    train: Annotated[int, msgspec.Meta(ge=1)]
    test: Annotated[int, msgspec.Meta(ge=1)]
    brightest: Annotated[int, msgspec.Meta(ge=1, le=255)]


class ImageNetwork(OwnExperiment, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """A network, its image set, and how it is trained and measured.

    Lists of convolutions have an entry a layer, those of pools one a block that pools. ``fc_filters`` are the widths of
    fully connected layers, the last that of the output, ``fc_dropout_layers`` 1 for each hidden one with dropout.
    ``train_images`` is how many images of the training set are used, its first; None is all. ``own`` is the content of
    an image set that does not come with the package; None of those that do.
    """

    study: ClassVar[str | None] = "nn_lifespans"
    task: ClassVar[str] = TASK
    task_version: ClassVar[int] = TASK_VERSION

    dataset: Annotated[str, Axis(check=OneOf(IMAGE_SETS))]
    batch_size: Annotated[int, Axis(check=Between(1, 2**20))]
    learning_rate: Annotated[float, Axis(check=Above(0), bits=64)]
    momentum: Annotated[float, Axis(0.0, Between(0, 1), bits=64)] = 0.0
    dampening: Annotated[float, Axis(0.0, Between(0, 1), bits=64)] = 0.0
    weight_decay: Annotated[float, Axis(0.0, Between(0, 1e9), bits=64)] = 0.0
    layer_types: Annotated[Wholes, Axis()]
    dropout_rate: Annotated[float, Axis(0.0, Between(0, 1), bits=64)] = 0.0
    conv_kernels: Annotated[Wholes, Axis()]
    conv_strides: Annotated[Wholes, Axis()]
    conv_paddings: Annotated[Wholes, Axis()]
    pool_kernels: Annotated[Wholes, Axis(())] = ()
    pool_strides: Annotated[Wholes, Axis(())] = ()
    pool_paddings: Annotated[Wholes, Axis(())] = ()
    conv_filters: Annotated[Wholes, Axis()]
    fc_dropout_rate: Annotated[float, Axis(0.0, Between(0, 1), bits=64)] = 0.0
    fc_dropout_layers: Annotated[Wholes, Axis(())] = ()
    fc_filters: Annotated[Wholes, Axis()]
    fc_activation: Annotated[str, Axis("none", OneOf(FC_ACTIVATIONS))] = "none"
    val_mode: Annotated[str, Axis("full", OneOf(VAL_MODES))] = "full"
    epochs: Annotated[int, Axis(40, Between(1, 2**16))] = 40
    train_images: Annotated[int | None, Axis(None, Between(1, 2**40))] = None
    own: OwnImages | None = None

    def parameters(self) -> dict[str, Value]:
        """Return the parameter columns, by name: the fields, and the number of convolutions, a key of the layout."""
        values = super().parameters()
        del values["own"]
        return {**values, "n_conv_layers": len(self.conv_kernels)}

    def canonical(self) -> dict[str, Value]:
        """Return the keys and values of the canonical JSON."""
        own = {} if self.own is None else msgspec.structs.asdict(self.own)
        return {**super().canonical(), **{f"data.{name}": value for name, value in own.items()}}

    @classmethod
    def of_canonical(cls, values: Mapping[str, Any]) -> Self:
        """Return the experiment of parsed canonical JSON; raise KeyError, TypeError or ValueError for another's."""
        raw = {name: values[name] for name in cls.__struct_fields__ if name != "own"}
        if "data.sha256" in values:
            raw["own"] = {name: values[f"data.{name}"] for name in OwnImages.__struct_fields__}
        return msgspec.convert(raw, cls)


HYPERPARAMETERS: Final = hyperparameters(ImageNetwork)
PARAMETERS: Final = (*HYPERPARAMETERS, "n_conv_layers")
#: What tells one published network from another: columns 9 to 28 of the tables but the loss and the optimizer, which
#: are the same in all.
NETWORK_PARAMETERS: Final = tuple(HYPERPARAMETERS)[: tuple(HYPERPARAMETERS).index("fc_filters") + 1]


def network_id(parameters: Mapping[str, Any]) -> str:
    """Return a text of 16 hexadecimal digits, the same for networks of the same `NETWORK_PARAMETERS`.

    It is the beginning of the SHA-256 of these as canonical JSON. How a network was measured, how long it was trained
    and who trained it make no difference: twins have the same.
    """
    text = to_json({name: parameters[name] for name in NETWORK_PARAMETERS})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def label(parameters: Mapping[str, Any]) -> str:
    """Return a short name of a network for people."""
    filters = "-".join(map(str, parameters["conv_filters"] or ()))
    widths = "-".join(map(str, parameters["fc_filters"] or ()))
    return f"{parameters['dataset']} conv {filters} fc {widths} batch {parameters['batch_size']}"


def spec_of(one: Experiment) -> ImageNetwork:
    """Return an experiment of ours; raise TypeError for any other."""
    if not isinstance(one, ImageNetwork):
        raise TypeError(f"{one.describe()} is none of {TASK}")
    return one
