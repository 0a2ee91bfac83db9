"""Small networks whose parameters are attributed."""

import torch
from torch import nn

from deconfuse.attribution.network import Network, parameter_names


class Embeds(nn.Module):
    """A backbone and a head, as an Embedder has them."""

    def __init__(self, backbone, head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images):
        return self.head(self.backbone(images))


class Nothing(nn.Flatten):
    """A backbone without a parameter: the network is only a head."""

    last_block = ()


def in_batches(images, size):
    rows = torch.arange(len(images))
    return [(part, None, index) for part, index in zip(images.split(size), rows.split(size), strict=True)]


def only_a_head(training, test, params, size=5):
    """The toy head as a network on (B, 1, 1, D) 'images'."""
    m, dims = training.weight.shape
    head = nn.Linear(dims, m, dtype=training.weight.dtype)
    head.load_state_dict({"weight": training.weight, "bias": training.bias})
    model = Embeds(Nothing(), head).requires_grad_(False)
    images, tests = training.features[:, None, None], test[:, None, None]
    return Network(
        model,
        training.loss,
        parameter_names(model, params),
        training.labels,
        in_batches(images, size),
        tests.__getitem__,
        tests.__getitem__,
    )
