"""Saving while training goes on.

At a step boundary what a checkpoint holds is copied to memory of the host, and a thread of rank 0 writes it from there,
by the protocol of `folder`. One save is under way at a time; a second waits for it. On a GPU the copy, too, runs
beside the next step: only what changes the weights waits for it.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from schemas.errors import UserError
from training.checkpoints import folder as ckpt
from training.distributed.sharded import is_sharded, whole
from training.distributed.world import World
from training.models.config import DitConfig, PixArtConfig
from training.weights.files import save_weights

Group = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What a checkpoint holds.

    `weights` and `states` are tensors by file and name. A weights file has `model` and its own `metadata` inside.
    """

    step: int
    weights: Mapping[str, Group]
    metadata: Mapping[str, Mapping[str, str]]
    model: PixArtConfig | DitConfig
    states: Mapping[str, Group]
    texts: Mapping[str, str]
    kept: Mapping[str, Path]  # weights files that outlive the checkpoint, by another name


class Saver:
    """The checkpoints of a run. Every rank has one and calls the same methods at the same step.

    `keep` newest ones stay. Without `background`, `save` returns when all is on the disk. Errors of the disk are raised
    on every rank, as `StorageError` or `OSError`: by the next call, for which `failed` tells rank 0 that it is due.
    """

    def __init__(self, run: Path, keep: int, world: World, background: bool) -> None:
        self._run, self._keep, self._world, self._background = run, keep, world, background
        self._host = HostCopy(world)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self._pending: Future[None] | None = None

    @property
    def failed(self) -> bool:
        """Whether this rank's writer has met an error that is not told yet."""
        return self._error is not None

    @property
    def _error(self) -> BaseException | None:
        return self._pending.exception() if self._pending is not None and self._pending.done() else None

    def save(self, content: Content, before: Callable[[], None]) -> None:
        """Save `content` as it is now, after the save before it. `before` is done by the writer ahead of the commit."""
        self.wait()
        parts = {file: dict(group) for file, group in {**content.weights, **content.states}.items()}
        if self._background or any(is_sharded(tensor) for group in parts.values() for tensor in group.values()):
            parts = self._host.take(parts)
        if self._world.rank == 0:
            self._pending = self._writer.submit(self._write, content, parts, before)
        if not self._background:
            self.wait()

    def release(self) -> None:
        """To be called before anything that was saved changes: on a GPU the copy may not have read it yet."""
        self._host.release()

    def wait(self) -> None:
        """Wait until what was saved is on the disk. Raises on every rank what kept it from getting there."""
        self._world.on_first(self._finish)

    def close(self, say: Callable[[str], None]) -> None:
        """Let a save that is under way come to its end, after training ended with an error; `say` gets the save's."""
        self._writer.shutdown(wait=True)
        if self._error is not None:
            say(f"the last save failed: {self._error}")

    def _finish(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, content: Content, parts: Mapping[str, Group], before: Callable[[], None]) -> None:
        self._host.wait()
        before()

        def write(folder: Path) -> None:
            for file in content.weights:
                save_weights(folder / file, parts[file], content.model, content.metadata[file])
            for file in content.states:
                save_file({name: tensor.cpu() for name, tensor in parts[file].items()}, folder / file)
            for file, text in content.texts.items():
                (folder / file).write_text(text)
            for file, place in content.kept.items():
                ckpt.publish_file(folder / file, place)

        ckpt.commit(self._run, content.step, self._keep, write)


class HostCopy:
    """Copies of tensors in memory of the host, made anew in the same place each time: pinned memory on CUDA.

    Sharded tensors are put together, for which all ranks take part; the copy is rank 0's alone.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._places: dict[tuple[str, str], Tensor] = {}
        on_cuda = world.device.type == "cuda" and world.rank == 0
        # torch gives the constructor no types
        self._stream = torch.cuda.Stream(world.device) if on_cuda else None  # type: ignore[no-untyped-call]
        self._copied: torch.cuda.Event | None = None

    @torch.no_grad()
    def take(self, groups: Mapping[str, Group]) -> dict[str, dict[str, Tensor]]:
        """Begin to copy tensors of this device by file and name; empty on ranks but 0. `wait` before reading them.

        Raises `UserError` where the host has no room.
        """
        out: dict[str, dict[str, Tensor]] = {}
        for file, name, tensor in _each(groups):
            if self._world.rank > 0 and not is_sharded(tensor):
                continue
            value = whole(tensor.detach())
            if self._world.rank == 0:
                out.setdefault(file, {})[name] = self._copy((file, name), value)
        if self._stream is not None:
            self._copied = self._stream.record_event()
        return {file: out.get(file, {}) for file in groups}

    def release(self) -> None:
        """Let what follows on the device wait for the copy."""
        if self._copied is not None:
            torch.cuda.current_stream(self._world.device).wait_event(self._copied)
            self._copied = None

    def wait(self) -> None:
        """Wait for the copy; from any thread."""
        if self._stream is not None:
            self._stream.synchronize()

    def _copy(self, key: tuple[str, str], value: Tensor) -> Tensor:
        place = self._places.get(key)
        if place is None:
            try:
                place = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            except RuntimeError as error:
                raise UserError(
                    f"the host has no memory for a copy of what is saved ({str(error).splitlines()[0]}). "
                    f"Save without one: --sync-save."
                ) from None
            self._places[key] = place
        if self._stream is None or not value.is_cuda:
            return place.copy_(value)
        self._stream.wait_stream(torch.cuda.current_stream(self._world.device))
        with torch.cuda.stream(self._stream):
            place.copy_(value, non_blocking=True)
        value.record_stream(self._stream)
        return place


def _each(groups: Mapping[str, Group]) -> Iterator[tuple[str, str, Tensor]]:
    for file, group in groups.items():
        for name, tensor in group.items():
            yield file, name, tensor
