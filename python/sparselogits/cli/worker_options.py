"""The options by which many processes work on one capture: torchrun, Slurm, Ray."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sparselogits.cli.failures import require
from sparselogits.distributed.rank import local_rank, rank_and_size
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from sparselogits.reader import Cache

# What has no effect without --unit-windows.
_OPTIONS = ("--rank", "--world-size", "--own-units-only", "--ray", "--ray-cpus", "--ray-gpus")
_NOT_WITH_RAY = ("--rank", "--world-size", "--own-units-only")
_ONLY_WITH_RAY = ("--ray-cpus", "--ray-gpus")


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options. Left out is None: what is given and has no effect is an error."""
    group = parser.add_argument_group("many workers")
    group.add_argument(
        "--unit-windows",
        type=int,
        metavar="N",
        help="capture units of N windows, which any number of processes share that run this same "
        "command; a multiple of --batch-size",
    )
    group.add_argument(
        "--rank", type=int, metavar="R", help="default: RANK or SLURM_PROCID, else the only worker"
    )
    group.add_argument(
        "--world-size", type=int, metavar="W", help="default: WORLD_SIZE or SLURM_NTASKS"
    )
    group.add_argument(
        "--own-units-only",
        action="store_true",
        default=None,
        help="where locks of files do not reach other machines: take no units of other workers",
    )
    group.add_argument(
        "--ray", type=int, metavar="ACTORS", help="capture on a Ray cluster, with so many teachers"
    )
    group.add_argument("--ray-cpus", type=float, metavar="X", help="an actor's (default: 1)")
    group.add_argument(
        "--ray-gpus", type=float, metavar="X", help="an actor's (default: 1 with --device cuda)"
    )


def in_units(args: argparse.Namespace) -> bool:
    """Whether the capture is one of many workers.

    Raises:
        InvalidArgumentError: An option is given that has no effect.
    """
    if args.unit_windows is None:
        _refuse(args, _OPTIONS, "without --unit-windows")
        return False
    if args.ray is None:
        _refuse(args, _ONLY_WITH_RAY, "without --ray")
    else:
        _refuse(args, _NOT_WITH_RAY, "with --ray")
    return True


def capture_in_units(
    args: argparse.Namespace,
    windows: Any,
    load_model: Callable[[argparse.Namespace], Any],
    options: Mapping[str, Any],
) -> Cache | None:
    """Does this process's part.

    Args:
        args: The parsed arguments; `device` "cuda" becomes this worker's device.
        windows: As for `capture_distributed`.
        load_model: Makes the teacher of the arguments; picklable.
        options: Those of `sparselogits.capture`, but for `progress` and `resume`.

    Returns:
        The cache, of which one process reports; None in the others.
    """
    if args.ray is not None:
        require("ray", "ray", "pyarrow")
        from sparselogits.distributed.ray_capture import capture_with_ray

        return capture_with_ray(
            functools.partial(load_model, args),
            windows,
            args.out,
            unit_windows=args.unit_windows,
            actors=args.ray,
            num_cpus=1.0 if args.ray_cpus is None else args.ray_cpus,
            num_gpus=_gpus(args),
            **options,
        )
    from sparselogits.distributed.worker import capture_distributed

    rank, world_size = rank_and_size(args.rank, args.world_size)
    cache = capture_distributed(
        functools.partial(load_model, on_own_device(args)),
        windows,
        args.out,
        unit_windows=args.unit_windows,
        rank=rank,
        world_size=world_size,
        help_others=not args.own_units_only,
        progress=rank == 0,  # one line of a terminal
        **options,
    )
    return cache if rank == 0 else None


def on_own_device(args: argparse.Namespace) -> argparse.Namespace:
    """With the GPU of this worker, where all of a machine are visible to each worker."""
    device = args.device
    if device == "cuda":
        import torch

        device = f"cuda:{local_rank() % max(1, torch.cuda.device_count())}"
    return argparse.Namespace(**{**vars(args), "device": device})


def _gpus(args: argparse.Namespace) -> float:
    if args.ray_gpus is not None:
        return float(args.ray_gpus)
    return 1.0 if args.device.startswith("cuda") else 0.0


def _refuse(args: argparse.Namespace, options: tuple[str, ...], when: str) -> None:
    for option in options:
        if getattr(args, option[2:].replace("-", "_")) is not None:
            raise InvalidArgumentError(f"{option} has no effect {when}")
