"""torchrun's launcher (torch.distributed.elastic) without a shell: a process for each GPU of each pod, or one a pod.

Ranks are fixed: the pod's number in its Indexed Job, which its host name ends in. The launcher starts nothing again by
itself. Where one process is lost, those that it worked with end too, and the Job makes new pods: so there is one way in
which a training is taken up again, whatever was lost.
"""

import signal
import socket
import sys

from torch.distributed import DistError, PrefixStore, TCPStore
from torch.distributed.elastic.multiprocessing import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousError,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from slm_trainer import reports
from slm_trainer.together import processes
from slmkit.reporting import write_report
from slmkit.run import MARGIN
from slmkit.stop import EXIT_TERMINATED
from slmops.contract import (
    GRACE_SECONDS,
    GRACE_SECONDS_WITH_VOLUME,
    RENDEZVOUS_PORT,
    Report,
    TrainRun,
)

BACKEND = "fixed"
JOIN_SECONDS = 900
"""How long a pod waits for the others; they may have larger images to pull."""


class FixedRanks(StaticTCPRendezvous):
    """PyTorch's own meeting of pods whose ranks are known, without libuv, which not every build of it has. The processes
    meet apart from it, at the next port."""

    def get_backend(self) -> str:
        """Its name."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """The launcher's store is the launchers' alone."""
        return False

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the leader, or for nobody as the leader. Raises DistError when it does not come."""
        store = TCPStore(self.master_addr, self.master_port, self.world_size, self.rank == 0, self.timeout,
                         multi_tenant=True, use_libuv=False)  # fmt: skip
        processes_meet = RendezvousStoreInfo(self.master_addr, self.master_port + 1)
        return RendezvousInfo(PrefixStore(self.run_id, store), self.rank, self.world_size, processes_meet)


def launch(run: TrainRun, *command: str) -> int:
    """Start this pod's processes, each Python with these arguments, and wait for them. Returns the pod's exit code."""
    rank = int(socket.gethostname().removeprefix(f"{run.run}-")) if run.nodes > 1 else 0
    leader = f"{run.run}-0.{run.run}" if run.nodes > 1 else "localhost"
    config = LaunchConfig(min_nodes=run.nodes, max_nodes=run.nodes, nproc_per_node=processes(), run_id=run.run,
                          rdzv_backend=BACKEND, rdzv_endpoint=f"{leader}:{RENDEZVOUS_PORT}",
                          rdzv_configs={"rank": rank}, max_restarts=0, monitor_interval=0.5)  # fmt: skip
    rendezvous_handler_registry.register(BACKEND, _fixed)
    kept = run.hyperparameters.checkpoint is not None
    reports.clear(processes())
    _let_end((GRACE_SECONDS_WITH_VOLUME if kept else GRACE_SECONDS) - MARGIN)
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException:
        return _publish(reports.first(), EXIT_TERMINATED)
    except ChildFailedError as failed:
        codes = [failure.exitcode for failure in failed.failures.values()]
        return _publish(*reports.verdict(codes, reports.left(processes())))
    except (RendezvousError, DistError, TimeoutError) as error:
        print(f"the other pods of the group did not come: {error}", file=sys.stderr)
        return EXIT_TERMINATED
    return _publish(reports.first(), 0)


def _publish(report: Report | None, code: int) -> int:
    """Leave the pod's report, where there is one. Returns the pod's exit code."""
    if report is not None:
        write_report(report)
    return code


def _let_end(seconds: float) -> None:
    """Give processes that are told to stop as long as the pod has. The launcher kills them after half a minute, which a
    step and the checkpoint of a large model do not always fit into, and has no setting for it."""
    original = getattr(PContext.close, "original", PContext.close)

    def close(self: PContext, death_sig: signal.Signals | None = None, timeout: int = 0) -> None:
        original(self, death_sig, seconds)

    close.original = original  # type: ignore[attr-defined]
    PContext.close = close  # type: ignore[method-assign]


def _fixed(parameters: RendezvousParameters) -> FixedRanks:
    host, _, port = parameters.endpoint.rpartition(":")
    return FixedRanks(host, int(port), parameters.config["rank"], parameters.max_nodes, parameters.run_id, JOIN_SECONDS)
