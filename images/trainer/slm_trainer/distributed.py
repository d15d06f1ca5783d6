"""Several processes that train one model: each takes its rows of every batch, and they add up what they learn.

What comes out is what one process would have made of the same batches: each row is seen once, by one of them, and every
token of an answer, or pair of answers, counts the same whoever saw it. Alone, all of this does nothing.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from slm_trainer.batch import Batch
from slmkit.run import RunFailed
from slmops.contract import Reason

WAIT = timedelta(minutes=15)
"""How long the others are waited for in an exchange: the slowest may write a checkpoint, or have fetched last."""
READY, DONE = "ready", "done"
READ = timedelta(seconds=30)
"""How long the leader stays for the others to read the last word; they look every second."""
LOST = ("gloo", "Connection reset by peer", "Connection closed by peer", "Broken pipe", "NCCL")
"""What backends say that have no error of their own."""


class Group:
    """One process alone."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, publishes and reports."""
        return self.rank == 0

    def wrapped(self, model: Any) -> Any:
        """What to call instead of the model."""
        return model

    def exchanging(self, called: Any, last: bool) -> AbstractContextManager[Any]:
        """Around a forward or backward pass: gradients are exchanged in the last one of a step."""
        return nullcontext()

    def share(self, batch: Batch) -> Batch:
        """This process' part of a batch."""
        return batch

    def average(self, parameters: Iterable[Tensor]) -> None:
        """The mean of gradients outside of the wrapped model, in each process."""

    def total(self, value: float, stopping: bool) -> tuple[float, bool]:
        """The sum of all processes' values, and whether any of them was told to stop: the same in each."""
        return value, stopping

    def agree(self, value: int, what: str) -> None:
        """Raise RunFailed where the processes do not hold the same number: they would wait for each other for ever."""

    def assemble(self, stopping: threading.Event) -> None:
        """Before the first exchange, which has a bound: the others stay until the leader has measured its untrained model,
        however long that takes."""

    def finish(self) -> None:
        """The leader: all is published, the others may go."""

    def wait(self, stopping: threading.Event) -> None:
        """The others: stay until the leader has published, so that its failure finds a group to try again with."""


class Ranks(Group):
    """This process among those that torchrun's launcher started; it named them in the environment."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self._device = torch.device("cpu")
        if torch.cuda.is_available():
            self._device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self._device)
        if not dist.is_initialized():
            with lost_is_told():
                dist.init_process_group("nccl" if self._device.type == "cuda" else "gloo", timeout=WAIT)

    def wrapped(self, model: Any) -> Any:
        """Its backward pass leaves in each process the mean of all gradients. All begin with the leader's weights."""
        return DistributedDataParallel(model, broadcast_buffers=False)

    def exchanging(self, called: Any, last: bool) -> AbstractContextManager[Any]:
        """Only in the last pass: the ones before it add to each process' own gradients."""
        return nullcontext() if last else called.no_sync()  # type: ignore[no-any-return]

    def share(self, batch: Batch) -> Batch:
        """Every ``size``-th row, or pair of rows. A process for which there is none takes the first, without its answer."""
        return batch.part(self.rank, self.size)

    def average(self, parameters: Iterable[Tensor]) -> None:
        """One by one: they are few."""
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:  # no row of this process had an answer
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def total(self, value: float, stopping: bool) -> tuple[float, bool]:
        """Both in one exchange, in double precision."""
        whole = torch.tensor([value, stopping], dtype=torch.float64, device=self._device)
        dist.all_reduce(whole)
        value, stops = whole.tolist()
        return value, stops > 0

    def agree(self, value: int, what: str) -> None:
        """The lowest and the highest have to be the same."""
        low, high = (torch.tensor([value], device=self._device) for _ in range(2))
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if int(low) != int(high):
            raise RunFailed(Reason.INVALID_CONFIGURATION, f"{what} differs between the pods of the group: the class of "
                            "run.volume has to show the same files to all of them")  # fmt: skip

    def assemble(self, stopping: threading.Event) -> None:
        """By a word in the store."""
        if self.leads:
            with lost_is_told():
                _store().set(READY, "1")
        else:
            _wait_for(READY, stopping)

    def finish(self) -> None:
        """Leave a word in the store, and stay until all have read it: the store goes with this process."""
        if self.leads:
            _store().set(DONE, "1")
            with suppress(dist.DistStoreError):  # who was lost meanwhile reads nothing; what was published stands
                _store().wait([_read(rank) for rank in range(1, self.size)], READ)

    def wait(self, stopping: threading.Event) -> None:
        """Until the word is there. Raises RunFailed when told to stop, or when the leader is lost."""
        _wait_for(DONE, stopping)
        with lost_is_told():
            _store().set(_read(self.rank), "1")


def group_of_this_process() -> Group:
    """The group that the launcher made; alone without one."""
    return Ranks() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Group()


def _read(rank: int) -> str:
    return f"{DONE} read by {rank}"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _wait_for(word: str, stopping: threading.Event) -> None:
    """Until the leader has left it. Raises RunFailed when told to stop, or when the leader is lost."""
    while not stopping.is_set():
        with lost_is_told():
            if _store().check([word]):
                return
        stopping.wait(1.0)
    raise RunFailed(Reason.TERMINATED, "the pod was told to stop")


@contextmanager
def lost_is_told() -> Iterator[None]:
    """What a lost connection to another process of the group raises becomes an interruption: it is no failure of this
    one, and all of them meet again in new pods. Raises RunFailed."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        if isinstance(error, dist.DistError) or (dist.is_initialized() and any(word in str(error) for word in LOST)):
            said = " ".join(str(error).split())[:300]
            raise RunFailed(Reason.TERMINATED, f"another pod of the group was lost: {said}") from error
        raise
