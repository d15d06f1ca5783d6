"""The platform, once for all end-to-end tests: cluster, images, chart, a teacher in the registry."""

import time
import tracemalloc  # noqa: F401  (pytest imports it at an unclosed socket; another one meanwhile would fail a test)
from collections.abc import Iterator

import pytest

from demo.steps import Kubectl, build_images, ensure_teacher, install, unfinished
from tests.cluster import Cluster, choose
from tests.e2e import toys
from tests.e2e.chain import chain
from tests.e2e.platform import NAMESPACE, REFUSING, Platform, vacate

__all__ = ["base", "chain", "local", "platform"]


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Everything installed, and an empty namespace."""
    cluster = choose()
    cluster.up()
    if isinstance(cluster, Cluster):
        cluster.reset()
    images = build_images(cluster)
    demo = Kubectl(cluster)
    if isinstance(cluster, Cluster) and unfinished(demo):
        print("a demo that was interrupted takes the processors from what is waited for: its namespace goes")
        vacate(demo, demo.namespace)
        cluster.namespace(demo.namespace)
    kubectl = Kubectl(cluster, NAMESPACE)
    vacate(kubectl, NAMESPACE)
    cluster.namespace(NAMESPACE)
    install(kubectl, images, *cluster.plain_http, REFUSING)
    ensure_teacher(kubectl, images, lambda text: print(time.strftime("%H:%M:%S"), text))
    yield Platform(cluster, kubectl, images)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="session")
def base(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model that tests begin with where they look at what is made of it."""
    return toys.base(platform, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def local(platform: Platform) -> Cluster:
    """The local cluster, for tests that reach behind the API server: nobody's own cluster is cut or stopped."""
    if not isinstance(platform.cluster, Cluster):
        pytest.skip("needs the local cluster: unset KUBECONFIG")
    return platform.cluster
