"""The outer shape of every kind: metadata, spec, status, and what its CRD prints."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from slmops.api.base import API_VERSION, ApiModel


@dataclass(frozen=True)
class Column:
    """A printer column of ``kubectl get``; priority 1 shows with ``-o wide`` only."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "date"] = "string"
    priority: int = 0


class Metadata(ApiModel):
    """The part of a Kubernetes object's metadata that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    annotations: Annotated[dict[str, str], Field()] = {}
    deletion_timestamp: str | None = None


Spec = TypeVar("Spec", bound=ApiModel)
State = TypeVar("State", bound=ApiModel)


class Resource(ApiModel, Generic[Spec, State]):
    """A custom resource. Subclasses name their CRD's plural, short names and columns."""

    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[Column, ...]]

    api_version: str = API_VERSION
    metadata: Metadata
    spec: Spec
    status: State

    @classmethod
    def kind(cls) -> str:
        """The CRD's kind: the class's name."""
        return cls.__name__

    def owner_reference(self) -> dict[str, Any]:
        """What makes a child ours: garbage collected with us, and refused to anybody else."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind(),
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
