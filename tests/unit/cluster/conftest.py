"""Certificates, made once for all tests that want them."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate for the name `kubernetes`, and another authority."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl("req", "-x509", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    openssl("req", *new[:-2], "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "ext").write_text("subjectAltName=DNS:kubernetes\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-extfile", "ext", "-days", "2",
            "-out", "server.crt")  # fmt: skip
    return folder
