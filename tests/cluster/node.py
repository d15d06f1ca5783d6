"""A node: containerd, kubelet and kube-proxy in a network and mount namespace of their own."""

import json
import os
import shutil
import signal
from datetime import datetime
from pathlib import Path

import yaml

from tests.cluster import cgroups, network
from tests.cluster.binaries import PROGRAMS, binary, folder
from tests.cluster.controlplane import kubectl
from tests.cluster.layout import CONFIG, DOMAIN, HOST, LOGS, PAUSE, PKI, POD_RANGE, REGISTRY, NodeSpec
from tests.cluster.pki import kubeconfig
from tests.cluster.shell import alive, pid, processes_with, run, start, stop, wait

SYSCTLS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
"""What every kubelet sets; shown to it as set, because they are the whole machine's."""


class Node:
    """One node, by its name. Its daemons are ``<part>-<node>``."""

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.address = spec.address

    # --- life

    def start(self) -> None:
        """Start what does not run."""
        self._folders()
        if not alive(f"node-{self.name}"):
            start(f"node-{self.name}", "nsenter", f"--net=/run/netns/{self.spec.netns}", "unshare", "--mount",
                  "--propagation", "slave", "bash", self._script())  # fmt: skip
            ready = self.spec.folder / "namespace-ready"
            wait(f"{self.name}'s namespaces", ready.exists, 10, LOGS / f"node-{self.name}.log")
        self._containerd()
        self._kubelet()
        self._proxy()

    def stop(self) -> None:
        """Stop the node and all of its containers."""
        self.kill()
        stop(f"node-{self.name}", hard=True)
        self._unmount()

    def kill(self) -> None:
        """Power off: no goodbye for anybody on the node."""
        for part in ("kubelet", "kube-proxy", "containerd"):
            stop(f"{part}-{self.name}", hard=True)
        for number in cgroups.processes(self.spec.cgroup):
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for number in processes_with(f"{self.spec.folder}/containerd.sock"):
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def cut(self) -> None:
        """Pull the network plug; containers go on running."""
        network.cut(self.spec)

    def heal(self) -> None:
        """Put the plug back in."""
        network.heal(self.spec)

    def slow(self, rate: str) -> None:
        """Limit the node's link, for example ``1mbit``."""
        network.slow(self.spec, rate)

    def unslow(self) -> None:
        """Lift the limit."""
        network.unslow(self.spec)

    def fill(self) -> None:
        """Have no room for what is pulled, as on a full disk; the images that are there stay."""
        run(*self.inside("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", self._incoming))

    def unfill(self) -> None:
        """Have room again."""
        run(*self.inside("umount", self._incoming), check=False)

    def ready(self, since: datetime | None = None) -> bool:
        """Whether the API server calls the node Ready, by what its kubelet has said since then: what the last one said
        outlives it."""
        path = "jsonpath={range .status.conditions[?(@.type=='Ready')]}{.status} {.lastHeartbeatTime}{end}"
        status, _, beat = kubectl("get", "node", self.name, "-o", path, check=False).strip().partition(" ")
        return status == "True" and (since is None or datetime.fromisoformat(beat) >= since)

    def comes(self, since: datetime | None = None) -> bool:
        """Whether it is Ready; a kubelet that has ended is started again, as a real node's systemd does: it ends where
        containerd is still reading which containers there were."""
        if not alive(f"kubelet-{self.name}"):
            self._kubelet()
        return self.ready(since)

    def finish(self) -> None:
        """What is set from outside once the node is known."""
        if self.spec.gpus:
            patch = {"status": {"capacity": {"nvidia.com/gpu": str(self.spec.gpus)}}}
            kubectl("patch", "node", self.name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    # --- parts

    @property
    def _incoming(self) -> Path:
        return self.spec.folder / "root" / "io.containerd.content.v1.content" / "ingest"

    def inside(self, *command: str | Path) -> list[str | Path]:
        """A command as it is run in the node's network and among its mounts."""
        return ["nsenter", "-t", str(pid(f"node-{self.name}")), "-m", "-n", *command]

    def _containerd(self) -> None:
        config = self.spec.folder / "containerd.toml"
        config.write_text(self._containerd_config())
        path = f"{folder(next(p for p in PROGRAMS if p.name == 'containerd'))}:{os.environ['PATH']}:/usr/sbin:/sbin"
        start(f"containerd-{self.name}", *self.inside(binary("containerd"), "-c", config), environment={"PATH": path})
        socket = self.spec.folder / "containerd.sock"
        ctr = ("--address", socket, "--timeout", "2s", "version")
        wait(f"{self.name}'s containerd", lambda: "Server:" in run(binary("ctr"), *ctr, check=False), 20,
             LOGS / f"containerd-{self.name}.log")  # fmt: skip

    def _kubelet(self) -> None:
        config = self.spec.folder / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self._kubelet_config()))
        access = kubeconfig(CONFIG / f"kubelet-{self.name}.kubeconfig", f"kubelet-{self.name}")
        start(f"kubelet-{self.name}", *self.inside(
            binary("kubelet"), "--config", config, "--kubeconfig", access, "--root-dir", self.spec.folder / "kubelet",
            "--cert-dir", self.spec.folder / "pki", "--hostname-override", self.name, "--node-ip", self.address,
            "--node-labels", f"pool={self.spec.pool}", "--v=0"),
            environment={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})  # fmt: skip

    def _proxy(self) -> None:
        if alive(f"kube-proxy-{self.name}"):
            return  # it ends when its configuration file is written, also with what that holds already
        access = kubeconfig(CONFIG / "proxy.kubeconfig", "proxy")
        config = self.spec.folder / "kube-proxy.yaml"
        config.write_text(yaml.safe_dump({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
            "clientConnection": {"kubeconfig": str(access)}, "hostnameOverride": self.name, "clusterCIDR": POD_RANGE,
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }))  # fmt: skip
        start(f"kube-proxy-{self.name}", *self.inside(binary("kube-proxy"), "--config", config, "--v=0"),
              environment={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})  # fmt: skip

    # --- files

    def _folders(self) -> None:
        for name in ("cni", "kubelet", "pki", "pods", "root", "state", "certs.d"):
            (self.spec.folder / name).mkdir(parents=True, exist_ok=True)
        hosts = self.spec.folder / "certs.d" / REGISTRY
        hosts.mkdir(exist_ok=True)
        (hosts / "hosts.toml").write_text(f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\n'
                                          '  capabilities = ["pull", "resolve"]\n')  # fmt: skip
        (self.spec.folder / "cni" / "10-slm.conflist").write_text(json.dumps({
            "cniVersion": "1.0.0", "name": "slm",
            # Point to point, not a bridge: all traffic is routed, so Services work between pods of one node as well.
            "plugins": [{"type": "ptp", "ipam": {
                "type": "host-local", "ranges": [[{"subnet": self.spec.pods}]], "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.spec.folder / "ipam")}}],
        }))  # fmt: skip
        (self.spec.folder / "resolv.conf").write_text(f"nameserver {HOST}\n")
        memory = self.spec.memory_gib * 1024 * 1024
        lines = Path("/proc/meminfo").read_text().splitlines()
        shown = [f"MemTotal:       {memory} kB" if line.startswith("MemTotal:") else line for line in lines]
        (self.spec.folder / "meminfo").write_text("\n".join(shown) + "\n")
        cgroups.make(self.spec.cgroup)

    def _script(self) -> Path:
        """Holds the namespaces open, with what the node's programs should see instead of the machine's own files."""
        mounts = [f"mount --bind {self.spec.folder}/meminfo /proc/meminfo"]
        for name, value in SYSCTLS.items():
            file = self.spec.folder / name.replace("/", "-")
            file.write_text(f"{value}\n")
            mounts.append(f"mount --bind {file} /proc/sys/{name}")
        script = self.spec.folder / "namespace.sh"
        ready = self.spec.folder / "namespace-ready"
        ready.unlink(missing_ok=True)
        script.write_text("\n".join(["set -e", *mounts, f"touch {ready}", "exec sleep infinity"]) + "\n")
        return script

    def _containerd_config(self) -> str:
        base = self.spec.folder
        cni = folder(next(p for p in PROGRAMS if p.name == "cni"))
        return f"""\
version = 3
root = "{base}/root"
state = "{base}/state"
oom_score = 0
[grpc]
  address = "{base}/containerd.sock"
[ttrpc]
  address = "{base}/containerd.sock.ttrpc"
[debug]
  level = "warn"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.internal.v1.opt"]
  path = "{base}/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{base}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{base}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""

    def _kubelet_config(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                               "x509": {"clientCAFile": str(PKI / "ca.crt")}},
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.spec.cgroup}",
            "failCgroupV1": False,
            "clusterDNS": [HOST],
            "clusterDomain": DOMAIN,
            "containerRuntimeEndpoint": f"unix://{self.spec.folder}/containerd.sock",
            "podLogsDir": str(self.spec.folder / "pods"),
            "resolvConf": str(self.spec.folder / "resolv.conf"),
            # Memory in use is read from the whole machine, not from the node's share: 0% takes no notice of it.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "3s",
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "serializeImagePulls": False,
            "shutdownGracePeriod": "0s",
            "enableProfilingHandler": False,
        }  # fmt: skip

    # --- cleaning up

    def _unmount(self) -> None:
        text = Path("/proc/self/mountinfo").read_text().splitlines()
        for mount in sorted((line.split()[4] for line in text), reverse=True):
            if mount.startswith(f"{self.spec.folder}/"):
                run("umount", "-l", mount, quiet=True)
        shutil.rmtree(self.spec.folder / "state", ignore_errors=True)
        shutil.rmtree(self.spec.folder / "ipam", ignore_errors=True)
        cgroups.remove(self.spec.cgroup)
