"""The Jobs that measure variants to choose from: each has the server and who asks it in one pod, beside whatever serves on
the node, so that nobody but the benchmark meets a variant before it is chosen."""

from slmops import contract
from slmops.api.base import seconds
from slmops.api.edgedeployment import EdgeDeployment
from slmops.plan.job import work
from slmops.plan.serving import model_volume, serve_run
from slmops.plan.sources import Sources, Unresolved
from slmops.plan.turns import bench_run, run_spec
from slmops.plan.verification import verification
from slmops.rollout.choosing import CHOOSE, Choosing, ToMeasure, host_of
from slmops.rollout.fit import server_resources
from slmops.rollout.revision import Revision, model_name
from slmops.rollout.trust import job_name, untrusted
from slmops.settings import Settings
from slmops.state import CONTAINER, LABEL_POOL, LABEL_ROLE, Manifest, Observed, Problem

KEY = "serve.json"
"""The server's configuration, beside the benchmark's own."""


def measuring(
    resource: EdgeDeployment, choosing: Choosing, observed: Observed, settings: Settings
) -> tuple[list[Manifest], Problem | None]:
    """What is missing of the Jobs, and why they cannot be. No node pulls anything that has to be signed and is not."""
    if not choosing.measuring or resource.spec.paused:
        return [], None
    all_of_them = _all(resource, choosing)
    if problem := untrusted(resource, observed, all_of_them):
        return verification(resource, all_of_them, observed, settings), problem
    made: list[Manifest] = []
    taken = {
        host_of(job)
        for job in _of_choosing(observed)
        if (name := job["metadata"]["name"]) not in choosing.jobs or not observed.job(name).finished
    }
    for wanted in choosing.measuring:
        # Two on one node would measure each other.
        if observed.child("Job", wanted.job) is None and wanted.node.hostname not in taken:
            try:
                made += _job(resource, wanted, observed, settings)
            except Unresolved as error:
                return [], error.problem
    return made, None


def no_more_measured(choosing: Choosing, observed: Observed) -> list[Manifest]:
    """Measurements that are of no use, and their configurations: of other images, or of a class that has chosen. None while
    it cannot be told what there is to choose from."""
    if not choosing.images:
        return []
    return [child for child in _of_choosing(observed) if child["metadata"]["name"] not in choosing.jobs]


def _of_choosing(observed: Observed) -> list[Manifest]:
    return [c for c in observed.children if (c["metadata"].get("labels") or {}).get(LABEL_ROLE) == CHOOSE]


def looked_for(resource: EdgeDeployment, choosing: Choosing) -> str | None:
    """The Job that looks whether all that there is to choose from is signed."""
    return job_name(resource, _all(resource, choosing)) if choosing.measuring else None


def _all(resource: EdgeDeployment, choosing: Choosing) -> Revision:
    return Revision("", choosing.images, model_name(resource))


def _job(resource: EdgeDeployment, wanted: ToMeasure, observed: Observed, settings: Settings) -> list[Manifest]:
    spec, sources = resource.spec.benchmark, Sources(observed)
    assert spec is not None
    serve = serve_run(resource, wanted.pool, Revision("", {}, model_name(resource)))
    target = contract.Target(name="candidate", url=f"http://127.0.0.1:{serve.port}", model=serve.model_name)
    run = bench_run(spec, sources, [target], wait=seconds(resource.spec.strategy.progress_deadline))
    made = work(
        resource, CHOOSE, run, image=settings.images.bench, run_spec=run_spec(resource, wanted.pool), sources=sources,
        settings=settings, node=wanted.node.hostname, name=wanted.job, labels={LABEL_POOL: wanted.pool.name},
    )  # fmt: skip
    made.config_map["data"][KEY] = serve.model_dump_json(exclude_none=True)
    _beside(made.job["spec"]["template"]["spec"], resource, wanted, settings)
    return made.missing(observed)


def _beside(pod: Manifest, resource: EdgeDeployment, wanted: ToMeasure, settings: Settings) -> None:
    """The server, which ends with the benchmark: a container that is started first and not waited for."""
    (bench,) = (container for container in pod["containers"] if container["name"] == CONTAINER)
    (config,) = (volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "config")
    volume, mount = model_volume(wanted.image)
    own = {"name": "serve", "configMap": {"name": config, "items": [{"key": KEY, "path": contract.CONFIG_KEY}]}}
    scratch = [found for found in bench["volumeMounts"] if found["name"] == "tmp"]
    pod["volumes"] += [volume, own]
    pod["initContainers"] = [
        {
            "name": "server",
            "image": resource.spec.runtime.image or settings.images.edge,
            "args": [contract.CONFIG_PATH],
            "restartPolicy": "Always",
            "resources": server_resources(resource, wanted.pool),
            "securityContext": bench["securityContext"],
            "volumeMounts": [{"name": "serve", "mountPath": contract.CONFIG_DIR, "readOnly": True}, mount, *scratch],
        }
    ]
