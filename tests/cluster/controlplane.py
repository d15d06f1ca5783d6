"""etcd, API server, controller manager, scheduler, DNS, volumes and the registry: processes on the host, behind the
bridge."""

import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.binaries import binary
from tests.cluster.layout import (
    API_SERVICE,
    AUDIT_LOG,
    CONFIG,
    DOMAIN,
    HOST,
    KUBECONFIG,
    LOGS,
    PKI,
    REGISTRY,
    REGISTRY_HOST,
    SERVICE_RANGE,
    STATE,
)
from tests.cluster.pki import kubeconfig
from tests.cluster.shell import run, start, wait

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    userGroups: ["system:nodes"]
  - level: None
    users: ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:apiserver",
            "system:coredns", "slmops-local-policies"]
  - level: Metadata
"""
COREFILE = f"""\
.:53 {{
    bind {HOST}
    errors
    health {HOST}:8081
    ready {HOST}:8181
    hosts {{
        {HOST} {REGISTRY_HOST}
        fallthrough
    }}
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {CONFIG / "dns.kubeconfig"}
        pods insecure
    }}
    cache 5
}}
"""
DNS_ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: slmops-local-dns}
rules:
  - {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: slmops-local-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: slmops-local-dns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns"}]
"""

STORAGE_CLASS = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: folder, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: slmops.dev/folder
"""


def start_registry() -> None:
    """The registry; its content outlives the cluster."""
    folder = STATE / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    host, port = REGISTRY.split(":")
    start("registry", binary("registry"), "--address", f"{HOST}:{port}", "--folder", folder)
    wait("the registry's answer", lambda: _answers(f"http://{host}:{port}/v2/"), 10, LOGS / "registry.log")


def start_etcd() -> None:
    """etcd, without fsync: the cluster may lose its state with the machine."""
    start("etcd", binary("server"), "--name=local", "--data-dir", STATE / "etcd", "--unsafe-no-fsync",
          f"--listen-client-urls=http://{HOST}:2379", f"--advertise-client-urls=http://{HOST}:2379",
          f"--listen-peer-urls=http://{HOST}:2380", f"--initial-advertise-peer-urls=http://{HOST}:2380",
          f"--initial-cluster=local=http://{HOST}:2380", "--log-level=warn")  # fmt: skip
    wait("etcd's answer", lambda: _answers(f"http://{HOST}:2379/health"), 20, LOGS / "etcd.log")


def start_apiserver() -> None:
    """The API server, with an audit log of everybody but the system's own users."""
    CONFIG.mkdir(parents=True, exist_ok=True)
    policy = CONFIG / "audit-policy.yaml"
    policy.write_text(AUDIT_POLICY)
    kubeconfig(KUBECONFIG, "admin")
    start("kube-apiserver", binary("kube-apiserver"), f"--etcd-servers=http://{HOST}:2379",
          f"--advertise-address={HOST}", f"--bind-address={HOST}", "--secure-port=6443",
          f"--service-cluster-ip-range={SERVICE_RANGE}",
          f"--client-ca-file={PKI / 'ca.crt'}", f"--tls-cert-file={PKI / 'apiserver.crt'}",
          f"--tls-private-key-file={PKI / 'apiserver.key'}", f"--service-account-key-file={PKI / 'sa.pub'}",
          f"--service-account-signing-key-file={PKI / 'sa.key'}", f"--service-account-issuer=https://{API_SERVICE}",
          f"--kubelet-client-certificate={PKI / 'admin.crt'}", f"--kubelet-client-key={PKI / 'admin.key'}",
          "--kubelet-preferred-address-types=InternalIP", "--authorization-mode=Node,RBAC",
          "--enable-admission-plugins=NodeRestriction", f"--audit-policy-file={policy}",
          f"--audit-log-path={AUDIT_LOG}", "--audit-log-maxsize=200", "--audit-log-maxbackup=5", "--profiling=false",
          "--allow-privileged=true", "--event-ttl=1h", "--v=0")  # fmt: skip
    wait("the API server's readiness", lambda: bool(kubectl("get", "--raw", "/readyz", check=False)), 60,
         LOGS / "kube-apiserver.log")  # fmt: skip


def start_rest() -> None:
    """Controller manager, scheduler, DNS and volumes."""
    manager = kubeconfig(CONFIG / "controller-manager.kubeconfig", "controller-manager")
    start("kube-controller-manager", binary("kube-controller-manager"), f"--kubeconfig={manager}",
          f"--authentication-kubeconfig={manager}", f"--authorization-kubeconfig={manager}", "--bind-address=127.0.0.1",
          f"--root-ca-file={PKI / 'ca.crt'}", f"--service-account-private-key-file={PKI / 'sa.key'}",
          f"--cluster-signing-cert-file={PKI / 'ca.crt'}", f"--cluster-signing-key-file={PKI / 'ca.key'}",
          "--use-service-account-credentials=true", "--leader-elect=false", "--node-monitor-grace-period=12s",
          "--node-monitor-period=3s", "--profiling=false", "--v=0")  # fmt: skip
    scheduler = kubeconfig(CONFIG / "scheduler.kubeconfig", "scheduler")
    start("kube-scheduler", binary("kube-scheduler"), f"--kubeconfig={scheduler}",
          f"--authentication-kubeconfig={scheduler}", f"--authorization-kubeconfig={scheduler}",
          "--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false", "--v=0")  # fmt: skip
    kubectl("apply", "-f", "-", stdin=DNS_ROLE)
    kubeconfig(CONFIG / "dns.kubeconfig", "dns")
    (CONFIG / "Corefile").write_text(COREFILE)
    start("coredns", binary("coredns"), "-conf", CONFIG / "Corefile")
    wait("DNS's readiness", lambda: _answers(f"http://{HOST}:8181/ready"), 30, LOGS / "coredns.log")
    start_volumes()


def start_volumes() -> None:
    """A default storage class: a volume is a folder that all nodes see, so it outlives each of them."""
    kubectl("apply", "-f", "-", stdin=STORAGE_CLASS)
    start("provisioner", binary("provisioner"), "--kubeconfig", KUBECONFIG, "--folder", STATE / "volumes")


def kubectl(*arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl as administrator."""
    return run(binary("kubectl"), "--kubeconfig", KUBECONFIG, *arguments, stdin=stdin, check=check)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (TimeoutError, urllib.error.URLError, ConnectionError, OSError):
        return False
