"""What all ops share: the torch.library namespace ``fastaug``, argument checks, and the way into the native module.

A file of ops declares itself once::

    define("gain(Tensor x, Tensor gain, Tensor? active) -> Tensor", cpu=_cpu, cuda=_cuda, fake=_fake)

and its public function calls ``_cpu`` directly when ``direct(x, ...)`` allows it (4 us less than the dispatcher, see
``direct``), else ``torch.ops.fastaug.gain``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastaug._paths import checkout_stamp, csrc_dir

__all__ = ["active_rows", "check_samples", "define", "direct", "native", "pointer", "row_values", "threads"]

#: FRAGMENT, not DEF: a second import (a reload, a test that forks the module) must not clash.
LIBRARY = torch.library.Library("fastaug", "FRAGMENT")


_BUILD = "python setup.py build_ext --inplace --force"
_GRAIN = 32_768  # at::internal::GRAIN_SIZE


@functools.lru_cache(maxsize=1)
def native() -> ModuleType:
    """The compiled module ``fastaug._native``. torch is imported first, so both use torch's libgomp.

    Raises:
        ImportError: the extension has not been built, or from other sources than those beside the package, which would
            have it read memory that is not there; with the command that builds it.
    """
    try:
        from fastaug import _native
    except ImportError as error:
        raise ImportError(
            f"the native operators of fastaug are not built ({error}). In a checkout, run "
            f"`{_BUILD}` (it needs a C++17 compiler); otherwise reinstall fastaug"
        ) from error
    expected = checkout_stamp()
    if expected is not None and getattr(_native, "stamp", None) != expected:
        raise ImportError(
            f"the native operators of fastaug were built from other sources than this checkout's: run `{_BUILD}` "
            f"in {csrc_dir().parent} (it would replace {_native.__file__})"
        )
    return _native


def threads(elements: int | None = None) -> int:
    """How many threads a CPU op may use: torch's number, which is 1 in a DataLoader worker.

    An op that is cheap per element passes how many it has: below torch's own grain size, waking a team costs more.
    """
    return 1 if elements is not None and elements < _GRAIN else torch.get_num_threads()


def pointer(tensor: Tensor | None) -> int | None:
    """The address of a contiguous tensor's first element, None (null) for None."""
    return None if tensor is None else tensor.data_ptr()


def check_samples(x: Tensor, name: str = "x") -> Tensor:
    """`x` as contiguous float32 (B, C, T).

    Raises:
        TypeError: not a float32 tensor.
        ValueError: not three-dimensional.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape (B, C, T), got {type(x).__name__}")
    if x.dtype != torch.float32:
        raise TypeError(f"{name} must be float32, got {x.dtype}")
    if x.dim() != 3:
        raise ValueError(f"{name} must have shape (B, C, T), got {tuple(x.shape)}")
    return x.contiguous()


def row_values(value: float | Tensor, x: Tensor, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """`value` as a contiguous (B,) tensor of `dtype` on the device of `x`; a number stands for all rows.

    Raises:
        ValueError: a tensor whose shape is neither () nor (B,).
    """
    rows = x.shape[0]
    if not isinstance(value, Tensor):
        return torch.full((rows,), value, dtype=dtype, device=x.device)
    if value.dim() == 0:
        value = value.expand(rows)
    if value.shape != (rows,):
        raise ValueError(f"{name} must be a number or have shape ({rows},), got {tuple(value.shape)}")
    if value.dtype != dtype or value.device != x.device:
        value = value.to(device=x.device, dtype=dtype, non_blocking=True)
    return value.contiguous()


def active_rows(active: Tensor | None, x: Tensor) -> Tensor | None:
    """`active` as a contiguous bool (B,) tensor on the device of `x`, or None for all rows.

    Raises:
        TypeError: not bool.
        ValueError: wrong shape.
    """
    if active is None:
        return None
    if active.dtype != torch.bool:
        raise TypeError(f"active must be a bool tensor, got {active.dtype}")
    if active.shape != (x.shape[0],):
        raise ValueError(f"active must have shape ({x.shape[0]},), got {tuple(active.shape)}")
    return (active if active.device == x.device else active.to(x.device, non_blocking=True)).contiguous()


def direct(*tensors: Tensor | None, cuda: bool = False) -> bool:
    """True if an op may skip the dispatcher: plain CPU (or CUDA) tensors, eager mode, no gradient to record.

    The dispatcher costs 4 us a call, 11 us with autograd registered, against 0.2 us for the native call.

    Raises:
        NotImplementedError: a tensor carries a forward-mode tangent, which the dispatcher would silently drop.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    if torch._C._functorch.maybe_current_level() is not None:  # vmap: the dispatcher loops over its rows
        return False
    if torch.autograd.forward_ad._current_level >= 0:
        _refuse_tangents([t for t in tensors if t is not None])
    recording = torch.is_grad_enabled()
    for t in tensors:
        if t is None:
            continue
        here = t.is_cuda if cuda else t.is_cpu
        if type(t) not in (Tensor, torch.nn.Parameter) or not here or (recording and t.requires_grad):
            return False
    return True


def _refuse_tangents(tensors: list[Tensor]) -> None:
    if any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError("the operators of fastaug have no forward-mode derivatives: use backward()")


def define(
    schema: str,
    *,
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
    tags: Sequence[torch.Tag] = (torch.Tag.pt2_compliant_tag,),
) -> None:
    """Registers ``fastaug::<schema>``: CPU and CUDA kernels, shapes for tracing, and the gradient.

    Without `backward`, asking for a gradient raises RuntimeError in the backward pass: an op whose output does not
    depend smoothly on its input (WSOLA) must not look like a constant.
    """
    name = "fastaug::" + schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=tuple(tags))
    LIBRARY.impl(name, cpu, "CPU")
    LIBRARY.impl(name, cuda, "CUDA")
    torch.library.register_fake(name, fake, lib=LIBRARY)
    torch.library.register_autograd(
        name, backward or _no_backward(name), setup_context=setup_context or _nothing, lib=LIBRARY
    )


def _nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """The context of an op that saves nothing."""


def _no_backward(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise RuntimeError(f"{name} has no gradient: detach its input, or call it under torch.no_grad()")

    return backward
