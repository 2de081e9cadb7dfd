"""The same batches, prepared by worker processes beside the one that trains."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.data import BatchStream, Prepared
from warehouse.shards import ShardError


class _Parts(IterableDataset):
    """In each worker, its own stream; a batch travels with the state that its stream was left in.

    The torch loader asks worker 0, 1, ... in turn. After `taken` batches it begins again with its first, so the streams
    are dealt out such that it goes on with the one whose turn it was.
    """

    def __init__(self, make: Callable[[int, int], BatchStream], states: Mapping[str, dict], taken: int) -> None:
        self._make, self._states, self._taken = make, states, taken

    def __iter__(self) -> Iterator[tuple[Prepared | ShardError, str, dict]]:
        worker = get_worker_info()
        assert worker is not None
        part = (worker.id + self._taken) % worker.num_workers
        stream = self._make(part, worker.num_workers)
        if str(part) in self._states:
            stream.load_state_dict(self._states[str(part)])
        try:
            for prepared in stream:
                yield prepared, str(part), stream.state_dict()
        except ShardError as e:  # raised, it would arrive with the worker's traceback in its message
            yield e, str(part), {}


class ParallelStream:
    """Takes a BatchStream's place. `make(k, n)` gives part k of n of this process's data; each lives in a worker."""

    def __init__(self, make: Callable[[int, int], BatchStream], workers: int, per_epoch: float) -> None:
        self._make, self._workers, self.per_epoch = make, workers, per_epoch
        self._states: dict[str, dict] = {}
        self._taken = 0
        self._batches: Iterator[Any] | None = None

    def state_dict(self) -> dict:
        return {"workers": self._workers, "states": dict(self._states), "taken": self._taken}

    def load_state_dict(self, state: Mapping) -> None:
        self._workers, self._states, self._taken = state["workers"], dict(state["states"]), state["taken"]
        self._batches = None

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        if self._batches is None:
            parts = _Parts(self._make, self._states, self._taken)
            self._batches = iter(DataLoader(parts, batch_size=None, num_workers=self._workers, prefetch_factor=2))
        prepared, part, state = next(self._batches)
        if isinstance(prepared, ShardError):
            raise prepared
        self._states[part] = state
        self._taken += 1
        return prepared
