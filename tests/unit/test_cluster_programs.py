"""The local cluster's programs are compiled from as few packages as possible: that is most of a first start's time."""

import re

import pytest

from tests.cluster.layout import HERE

SHARING = ("containerd", "coredns", "etcd", "helm", "provisioner")


def required(program: str) -> dict[str, str]:
    """Versions of the modules that a program is made of, by module."""
    text = (HERE / "go" / program / "go.mod").read_text()
    return dict(re.findall(r"^\s+(\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE))


@pytest.mark.parametrize("program", SHARING)
def test_what_is_shared_with_kubernetes_has_its_version(program: str) -> None:
    """A package is compiled anew where it, or anything that it imports, has another version."""
    theirs, ours = required("kubernetes"), required(program)
    assert len(theirs.keys() & ours.keys()) > 20
    other = {module: (version, theirs[module]) for module, version in ours.items()
             if theirs.get(module, version) != version}  # fmt: skip
    assert other == {}
