"""The platform, once for all end-to-end tests: cluster, images, chart, a teacher in the registry."""

import time
from collections.abc import Iterator

import pytest

from demo.steps import Kubectl, build_images, ensure_teacher, install
from tests.cluster import Cluster
from tests.e2e.platform import NAMESPACE, REFUSING, Platform


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Everything installed, and an empty namespace."""
    cluster = Cluster()
    cluster.up()
    images = build_images(cluster.registry)
    kubectl = Kubectl(cluster, NAMESPACE)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    cluster.namespace(NAMESPACE)
    install(kubectl, images, cluster.registry, REFUSING)
    ensure_teacher(kubectl, images, cluster.registry, lambda text: print(time.strftime("%H:%M:%S"), text))
    yield Platform(cluster, kubectl, images)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")
