"""The same batches, prepared by worker processes beside the one that trains."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.data import BatchStream, Prepared, next_number
from training.progresslm_data import RowError
from warehouse.shards import ShardError


class _Parts(IterableDataset):
    """In each worker, its own stream; a batch travels with the state of the lane that it came from.

    The torch loader asks worker 0, 1, ... in turn. The parts are dealt out such that worker 0 has the one whose turn it
    is at `turn`.
    """

    def __init__(self, make: Callable[[int, int], BatchStream], state: Mapping, turn: int) -> None:
        self._make, self._state, self._turn = make, state, turn

    def __iter__(self) -> Iterator[tuple[Prepared | ShardError | RowError, dict[str, dict]]]:
        worker = get_worker_info()
        assert worker is not None
        try:
            stream = self._make((worker.id + self._turn) % worker.num_workers, worker.num_workers)
            stream.load_state_dict(self._state)
            for prepared in stream:
                yield prepared, stream.last
        except (ShardError, RowError) as e:  # raised, it would arrive with the worker's traceback in its message
            yield e, {}


class ParallelStream:
    """Takes a BatchStream's place, as process `rank` of `world`.

    `make(k, n)` gives part k of n of this process's data: batches rank + world k of each world n. Each lives in a
    worker. On a machine with a GPU, batches lie in pinned memory.
    """

    def __init__(
        self,
        make: Callable[[int, int], BatchStream],
        workers: int,
        per_epoch: float,
        lanes: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._make, self._workers, self.per_epoch, self.lanes = make, workers, per_epoch, lanes
        self._rank, self._world = rank, world
        self._given = 0  # of all processes, each of which gives a batch in turn
        self._states: dict[str, dict] = {}
        self._batches: Iterator[Any] | None = None

    def state_dict(self) -> dict:
        """As a BatchStream's: it says nothing of the workers."""
        return {"given": self._given, "lanes": dict(self._states), "count": self.lanes}

    def load_state_dict(self, state: Mapping) -> None:
        self._given, self._states = int(state["given"]), dict(state["lanes"])
        self._batches = None

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        if self._batches is None:
            self._batches = self._started()
        prepared, lane = next(self._batches)
        if not isinstance(prepared, Prepared):
            raise prepared
        self._states |= lane
        self._given += self._world
        return prepared

    def _started(self) -> Iterator[Any]:
        turn = next_number(self._given, self._rank, self._world) // self._world
        parts = _Parts(self._make, self.state_dict(), turn)
        loader = DataLoader(
            parts,
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=2,
            pin_memory=torch.cuda.is_available(),
        )
        # There is a worker for each core. OpenCV is told before they start: a worker that came into being beside its
        # threads would wait for them for ever, since a process is copied without its threads.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return iter(loader)
        finally:
            cv2.setNumThreads(threads)
