"""Certificates of the cluster, made with openssl: one authority, and one for each who speaks to the API server."""

from pathlib import Path

from tests.cluster.layout import API_SERVICE, DOMAIN, HOST, NODES, PKI
from tests.cluster.shell import run

DAYS = "3650"


def make() -> None:
    """Make what is missing."""
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    if not (PKI / "ca.crt").exists():
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", "/CN=slmops-local",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",  # clients that check X.509 strictly ask for it
            "-keyout", PKI / "ca.key", "-out", PKI / "ca.crt")  # fmt: skip
    if not (PKI / "sa.key").exists():
        run("openssl", "genrsa", "-out", PKI / "sa.key", "2048")
        run("openssl", "rsa", "-in", PKI / "sa.key", "-pubout", "-out", PKI / "sa.pub")
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{DOMAIN}",
        "localhost",
    ]
    alternatives = ",".join([*(f"DNS:{n}" for n in names), f"IP:{HOST}", f"IP:{API_SERVICE}", "IP:127.0.0.1"])
    _issue("apiserver", "/CN=kube-apiserver", alternatives)
    _issue("admin", "/O=system:masters/CN=admin")
    _issue("controller-manager", "/CN=system:kube-controller-manager")
    _issue("scheduler", "/CN=system:kube-scheduler")
    _issue("proxy", "/CN=system:kube-proxy")
    _issue("dns", "/CN=system:coredns")
    _issue("policies", "/CN=slmops-local-policies")
    for node in NODES:
        _issue(
            f"kubelet-{node.name}", f"/O=system:nodes/CN=system:node:{node.name}", f"DNS:{node.name},IP:{node.address}"
        )


def _issue(name: str, subject: str, alternatives: str = "") -> None:
    certificate = PKI / f"{name}.crt"
    if certificate.exists():
        return
    key, request, extensions = PKI / f"{name}.key", PKI / f"{name}.csr", PKI / f"{name}.ext"
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", key, "-out", request)
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=clientAuth,serverAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        + (f"subjectAltName={alternatives}\n" if alternatives else "")
    )
    partial = PKI / f"{name}.crt.partial"
    run("openssl", "x509", "-req", "-in", request, "-CA", PKI / "ca.crt", "-CAkey", PKI / "ca.key", "-CAcreateserial",
        "-days", DAYS, "-extfile", extensions, "-out", partial)  # fmt: skip
    partial.rename(certificate)


def kubeconfig(path: Path, name: str) -> Path:
    """A kubeconfig for a certificate, whole in itself."""

    def data(file: str) -> str:
        return run("base64", "-w0", PKI / file)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""\
apiVersion: v1
kind: Config
clusters: [{{name: slmops, cluster: {{server: "https://{HOST}:6443", certificate-authority-data: {data("ca.crt")}}}}}]
users:
  - {{name: {name}, user: {{client-certificate-data: {data(f"{name}.crt")}, client-key-data: {data(f"{name}.key")}}}}}
contexts: [{{name: slmops, context: {{cluster: slmops, user: {name}}}}}]
current-context: slmops
""")
    path.chmod(0o600)
    return path
