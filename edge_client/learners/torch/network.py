"""A net whose params are views of one flat vector: weights come in and go out by copy, the module is built once."""

from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from common.method import ModelSpec, Scalar
from common.nets import _describe
from common.objectives import Seen
from common.payloads import Array, Weights
from edge_client.learners.layout import Flat, Layout


class Network:
    def __init__(
        self,
        model: ModelSpec,
        n_classes: int,
        objective: str,
        objective_options: Mapping[str, Scalar],
        device: torch.device,
    ) -> None:
        described = _describe.build(model, n_classes, objective, objective_options)
        self.specs = _describe.specs_of(described)
        self.layout = Layout(self.specs)
        self.device = device
        self.has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in described.modules())
        self.flat = torch.zeros(self.layout.size, device=device)
        self.slopes = torch.zeros(0, device=device)  # gradients, while training
        self.net: Any = described.to_empty(device=device)  # Any: `features` and `classifier`, see common/nets
        self.net.eval()  # a module begins in training mode, in which batch norm would look at whoever shares the batch
        self._params = dict(self.net.named_parameters())
        self._buffers = {name: b for name, b in self.net.named_buffers() if name in self.specs}
        for name, param in self._params.items():
            param.data = self.flat[self.layout.place(name)].view(param.shape)
            param.requires_grad_(False)

    def load(self, weights: Weights) -> None:
        self.layout.fill(self._host(), weights)
        if self.device.type != "cpu":
            self.flat.copy_(torch.from_numpy(self._host_copy))
        for name, buffer in self._buffers.items():
            buffer.copy_(_tensor(weights[name]))

    def params(self, names: Collection[str]) -> dict[str, Array]:
        """A copy of these params; names of other tensors are ignored."""
        return _copied(self.layout, self.flat, names)

    def gradients(self) -> dict[str, Array]:
        return _copied(self.layout, self.slopes, self.layout.shapes)

    def buffers(self, names: Collection[str]) -> dict[str, Array]:
        """A copy of the buffers in the layers of these tensors."""
        layers = {self.specs[name].layer for name in names}
        return {n: _array(b) for n, b in self._buffers.items() if self.specs[n].layer in layers}

    def begin_training(self, trainable: Collection[str]) -> None:
        """Gradients for these; a layer with buffers none of whose tensors may move works as in evaluation."""
        self.net.train()
        moving = {self.specs[name].layer for name in trainable}
        for name in self._buffers:
            if self.specs[name].layer not in moving:
                self.net.get_submodule(self.specs[name].layer).eval()
        self.want_gradients(trainable)

    def want_gradients(self, names: Collection[str]) -> None:
        self.slopes = torch.zeros_like(self.flat)
        for name, param in self._params.items():
            if name in names:
                param.requires_grad_(True)
                param.grad = self.slopes[self.layout.place(name)].view(param.shape)

    def end_training(self) -> None:
        """Frees the gradients; from here the net is only looked at."""
        self.net.eval()
        for param in self._params.values():
            param.requires_grad_(False)
            param.grad = None
        self.slopes = torch.zeros(0, device=self.device)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.net.features(x))

    def classify(self, embedding: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.net.classifier(embedding))

    def see(self, views: tuple[torch.Tensor, ...], labels: torch.Tensor) -> Seen:
        """All views go through the net at once, so that batch norm sees them together."""
        embedding = self.features(views[0] if len(views) == 1 else torch.cat(views))
        embeddings = embedding.chunk(len(views)) if len(views) > 1 else (embedding,)
        return Seen(tuple(embeddings), labels, self.classify, getattr(self.net, "objective", None))

    def layers(self) -> tuple[str, ...]:
        """What `embed` can be asked for."""
        named = (name for name, _ in self.net.named_modules())
        return ("embedding", *(name for name in named if name and name.partition(".")[0] != "objective"))

    def output_of(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        """What that layer gives for these samples, one row each."""
        if layer == "embedding":
            return self.features(x)
        caught: list[torch.Tensor] = []
        handle = self.net.get_submodule(layer).register_forward_hook(lambda _m, _i, output: caught.append(output))
        try:
            self.classify(self.features(x))
        finally:
            handle.remove()
        return caught[-1].flatten(1)

    def _host(self) -> Flat:
        if self.device.type == "cpu":
            return self.flat.numpy()
        self._host_copy = np.zeros(self.layout.size, np.float32)
        return self._host_copy


def _copied(layout: Layout, flat: torch.Tensor, names: Collection[str]) -> dict[str, Array]:
    views = layout.views(flat.cpu().numpy())
    return {name: np.array(view) for name, view in views.items() if name in names}


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy: decoded arrays are read-only, which torch warns of


def _array(tensor: torch.Tensor) -> Array:
    return np.array(tensor.cpu().numpy())
