"""PyTorch: what a layer reads, and a network that says what it does not know. torch is imported when these are called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ._errors import DataTypeError, InputError, ShapeError


def extract(
    model: Any,
    loader: Iterable[Any],
    layer: Any = None,
    *,
    device: Any = None,
    progress: Callable[[int], None] | bool | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """What ``layer`` of a PyTorch model reads of the inputs of ``loader``: features and labels for `Detector.fit`.

    The model runs in evaluation mode without gradients, on the device where its parameters are; its modes are restored.

    Args:
        model: a ``torch.nn.Module``.
        loader: batches: tensors, ``(inputs, labels)``, or mappings whose labels are called ``label`` or ``labels`` and whose other
            entries are the model's keyword arguments.
        layer: the name of the layer, as in ``"fc"``, or the layer; the last linear layer otherwise.
        device: where inputs are moved; that of the model's first parameter otherwise.
        progress: called with the number of inputs so far; ``None`` counts on a terminal, ``False`` does not.

    Returns:
        Features ``[N, D]``, f32, and labels ``[N]``, i64, or ``None`` where the batches have none.

    Raises:
        InputError: there is no such layer; the message lists those that there are.
        ShapeError: it reads something else than vectors.
    """
    import torch

    target = find_layer(model, layer)
    device = _device(model) if device is None else device
    tell = _teller(progress)
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    rows = 0
    with _evaluating(model), torch.no_grad(), _reading(target) as read:
        for batch in loader:
            inputs, keywords, y = _parts(batch)
            model(*(_moved(one, device) for one in inputs), **{name: _moved(one, device) for name, one in keywords.items()})
            part = _vectors(read()).float().cpu().numpy()
            features.append(part)
            if y is not None:
                labels.append(np.asarray(y.detach().cpu() if hasattr(y, "detach") else y).reshape(-1).astype(np.int64))
            rows += len(part)
            tell(rows)
    if not features:
        raise InputError("no batches", argument="loader", expected="at least one", kind="Empty")
    found = np.concatenate(features)
    if labels and sum(map(len, labels)) != rows:
        raise ShapeError(f"[{sum(map(len, labels))}]", tensor="labels", expected=f"[{rows}], one for each input", kind="Shape")
    return found, np.concatenate(labels) if labels else None


def wrap(detector: Any, model: Any, layer: Any = None) -> Any:
    """The model as a ``torch.nn.Module`` that returns ``(logits, score, is_ood)``; see `Detector.wrap`."""
    import torch

    target = find_layer(model, layer)
    detector._offset()

    class Guarded(torch.nn.Module):
        """A network beside a detector: ``(logits, score, is_ood)``; scores are f64, on the device of the logits."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
            with _reading(target) as read:
                logits = self.model(*args, **kwargs)
                features = _vectors(read())
            found = detector(features.detach().float().cpu().numpy(), non_finite="ood")
            place = features.device
            return logits, torch.from_numpy(found.score).to(place), torch.from_numpy(found.is_ood).to(place)

    return Guarded()


def find_layer(model: Any, layer: Any = None) -> Any:
    """The layer of that name, or the last linear layer of the model."""
    modules = dict(model.named_modules())
    linear = [name for name, one in modules.items() if getattr(getattr(one, "weight", None), "ndim", 0) == 2 and hasattr(one, "in_features")]
    if layer is None and linear:
        return modules[linear[-1]]
    if isinstance(layer, str) and layer in modules:
        return modules[layer]
    if layer is not None and not isinstance(layer, str) and any(one is layer for one in modules.values()):
        return layer
    raise InputError(
        "no linear layer" if layer is None else repr(layer),
        argument="layer",
        expected="a layer of the model" + (f": {', '.join(linear)}" if linear else ""),
        kind="Argument",
    )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _reading(layer: Any) -> Iterator[Callable[[], Any]]:
    """What the layer reads during each call of its model."""
    seen: list[Any] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def read() -> Any:
        if len(seen) != 1:
            raise InputError(f"{len(seen)} calls of it", argument="layer", expected="a layer that the model calls once for a batch", kind="Argument")
        return seen.pop()

    try:
        yield read
    finally:
        handle.remove()


def _vectors(features: Any) -> Any:
    shape = list(features.shape)
    if len(shape) == 4 and shape[2:] == [1, 1]:
        return features[:, :, 0, 0]
    if len(shape) != 2:
        raise ShapeError(
            str(shape), tensor="what the layer reads", expected="[N, D]", fix="choose the layer behind the pooling", kind="Shape"
        )
    return features


def _device(model: Any) -> Any:
    first = next(iter(model.parameters()), None)
    return None if first is None else first.device


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if device is not None and hasattr(value, "to") else value


def _parts(batch: Any) -> tuple[list[Any], dict[str, Any], Any]:
    """Positional inputs, inputs by name, and labels of a batch."""
    if isinstance(batch, Mapping):
        named = dict(batch)
        y = [named.pop(name) for name in ("labels", "label") if name in named]
        return [], named, y[0] if y else None
    if isinstance(batch, (list, tuple)):
        if len(batch) not in (1, 2):
            raise DataTypeError(f"{len(batch)} parts", argument="loader", expected="batches of inputs, or of inputs and labels", kind="Argument")
        return [batch[0]], {}, batch[1] if len(batch) == 2 else None
    return [batch], {}, None


def _teller(progress: Callable[[int], None] | bool | None) -> Callable[[int], None]:
    if callable(progress):
        return progress
    if progress is False or not sys.stderr.isatty():
        return lambda rows: None
    return lambda rows: print(f"\r{rows:,} inputs", end="", file=sys.stderr, flush=True)
