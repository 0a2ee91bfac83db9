"""Small data for the tests of the public face."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset


def rows(n, classes, seed, size=12, first=0):
    """Rows (n, size) around a centre for each class, and the classes."""
    random = np.random.default_rng(seed)
    labels = first + np.arange(n) % classes
    centres = np.random.default_rng(99).normal(size=(first + classes, size))
    return (centres[labels] + 1.7 * random.normal(size=(n, size))).astype(np.float32), labels


def images(n, classes, seed, channels=1, size=12, first=0):
    """A TensorDataset of noisy pictures (n, channels, size, size) in [0, 1], one pattern for each class."""
    random = np.random.default_rng(seed)
    labels = first + np.arange(n) % classes
    patterns = np.random.default_rng(98).uniform(size=(first + classes, channels, size, size))
    values = np.clip(patterns[labels] + 0.35 * random.normal(size=(n, channels, size, size)), 0, 1)
    return TensorDataset(torch.from_numpy(values).float(), torch.from_numpy(labels))


class Small(nn.Module):
    """A convolutional network with a linear layer in the middle of its head, and normalised output."""

    def __init__(self, channels=1, m=6, normalise=True):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.mix = nn.Linear(8, 10)
        self.fc = nn.Linear(10, m)
        self.drop, self.normalise = nn.Dropout(0.5), normalise

    def features(self, x):
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return torch.relu(self.mix(x))

    def forward(self, x):
        z = self.fc(self.drop(self.features(x)))
        return nn.functional.normalize(z, dim=1) if self.normalise else z


class Named(Dataset):
    """A data set of mappings, as of the library datasets."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __len__(self):
        return len(self.tensors)

    def __getitem__(self, i):
        image, label = self.tensors[i]
        return {"image": image, "label": int(label)}
