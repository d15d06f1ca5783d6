"""One pass over one resource, the same for all kinds: read, plan, act, state what is.

This is the only place where plan, cluster and status meet. A pass is level-based: it looks at what is, never at what
happened, so a missed event, a restart or a restore costs at most the time to the next pass.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from slmops.api.base import API_VERSION
from slmops.api.conditions import Condition, ConditionType, false, merge
from slmops.api.resource import Metadata, Resource
from slmops.cluster.cache import Cache
from slmops.cluster.client import Cluster
from slmops.cluster.errors import Conflict, Forbidden, InternalError, Invalid, NotFound, NotOurs
from slmops.cluster.monitors import Monitors
from slmops.cluster.objects import (
    CHILDREN,
    EDGE_DEPLOYMENT,
    FINE_TUNE,
    JOB,
    KNOWN,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    Key,
    differs,
    gvk_of,
    status_differs,
)
from slmops.contract import Progress
from slmops.cost import Growth, growth
from slmops.kinds import KINDS, Kind, refers_to
from slmops.monitoring.retrain import MANAGER as RETRAINS
from slmops.retraining import ANNOTATION_RETRAIN, Trace
from slmops.settings import Settings
from slmops.state import JOB_NAME_LABEL, Manifest, Observed, Plan, Problem, ended, job_state, owners

log = logging.getLogger(__name__)
REFUSED_RETRY_SECONDS = 30.0
"""A child that the API server refuses may be let in later (quota, a policy): looked at again without an event."""
FAILED_REMEDY = (
    "The API server fails over this object, not over others. Where it names an admission webhook, mend that one's "
    "server, or its failurePolicy; else the API server's log says more. Tried again, at least each minute."
)
NEVER_CHANGED = (JOB.kind, PERSISTENT_VOLUME_CLAIM.kind)
QUIET = {ConditionType.ACCEPTED, ConditionType.INPUTS_RESOLVED, ConditionType.PROGRESSING, ConditionType.EVALUATED}
"""Conditions that are worth an Event only when they turn False."""


class Reconciler:
    """Carries out passes."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        settings: Settings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        phase_seen: Callable[[Key, str | None], None] = lambda key, phase: None,
        progress_seen: Callable[[Key, Manifest | None], None] = lambda key, status: None,
        wake: Callable[[Key], None] = lambda key: None,
        spent: Callable[[str, Growth], None] = lambda kind, growth: None,
    ) -> None:
        """``wake`` gets the resources that refer to one whose status was written: our own writes make no events.
        ``spent`` is told what a kind's Jobs have used since the status that stood before."""
        self._cluster = cluster
        self._monitors = Monitors(cluster)
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._phase_seen = phase_seen
        self._progress_seen = progress_seen
        self._wake = wake
        self._spent = spent

    async def reconcile(self, key: Key) -> float | None:
        """One pass. Returns the seconds until the next is due without an event, or None."""
        kind = KINDS[key.kind]
        gvk = KNOWN[API_VERSION, key.kind]
        body = self._cache.get(gvk, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            self._phase_seen(key, None)
            self._progress_seen(key, None)
            self._monitors.forget(key)
            return None
        try:
            resource = _parse(kind, body)
        except ValidationError as error:
            await self._refuse(key, body, error)
            return None
        observed = await self._observe(kind, resource, body)
        plan = kind.plan(resource, observed, self._settings, self._clock())
        plan, observed, failure = await self._carry_out(body, plan, observed)
        status = kind.status(resource, observed, plan, self._clock())
        content = status.dump()
        if failure is not None:
            content["observedGeneration"] = resource.status.observed_generation
            content = {k: v for k, v in content.items() if v is not None}
        await self._write_status(body, content, resource.status.conditions)
        self._phase_seen(key, content.get("phase"))
        grown = growth(getattr(resource.status, "cost", None), getattr(status, "cost", None))
        if grown is not None:
            self._spent(kind.model.kind(), grown)
        self._progress_seen(key, content)
        if isinstance(failure, InternalError):
            raise failure  # now that it is said; the queue knows how long to wait
        return REFUSED_RETRY_SECONDS if failure is not None else plan.deadline

    # --- reading

    async def _observe(self, kind: Kind, resource: Resource[Any, Any], body: Manifest) -> Observed:
        meta = resource.metadata
        owned = [
            child
            for gvk in CHILDREN
            if gvk is not POD
            for child in self._cache.children(gvk, resource.kind(), meta.namespace, meta.name)
            if meta.uid in owners(child)
        ]
        uids = {child["metadata"]["uid"] for child in owned}
        pods = [
            pod for pod in self._cache.children(POD, resource.kind(), meta.namespace, meta.name) if uids & owners(pod)
        ]
        pods = await self._with_reports(owned, pods)
        references = {
            (other, name): manifest
            for other, name in refers_to(body)
            if (manifest := self._cache.get(KNOWN[API_VERSION, other], meta.namespace, name)) is not None
        }
        return Observed(
            children=tuple(owned),
            pods=tuple(pods),
            references=references,
            nodes=tuple(self._cache.list(NODE)) if kind.reads_nodes else (),
            progress=await self._progress(owned, pods),
            heard=await self._monitors.heard(resource, owned, pods, self._clock()),
        )

    async def _with_reports(self, children: Sequence[Manifest], pods: list[Manifest]) -> list[Manifest]:
        """Pods read live where a Job has ended and the cache does not show how yet: events have no order."""
        for job in children:
            if job.get("kind") != "Job":
                continue
            mine = [pod for pod in pods if job["metadata"]["uid"] in owners(pod)]
            if ended(job) and job_state(job, mine, {}).report is None:
                namespace = job["metadata"]["namespace"]
                live = await self._cluster.list(POD, namespace, {JOB_NAME_LABEL: job["metadata"]["name"]})
                for pod in live:
                    self._cache.put(POD, pod)
                rest = [pod for pod in pods if pod not in mine]
                pods = rest + [pod for pod in live if job["metadata"]["uid"] in owners(pod)]
        return pods

    async def _progress(self, children: Sequence[Manifest], pods: Sequence[Manifest]) -> dict[str, Progress]:
        jobs = {child["metadata"]["uid"] for child in children if child.get("kind") == JOB.kind}
        said = {}
        for pod in pods:
            if (pod.get("status") or {}).get("phase") != "Running" or not jobs & owners(pod):
                continue
            answer = await self._cluster.progress(pod)
            try:
                if answer is not None:
                    said[pod["metadata"]["uid"]] = Progress.model_validate(answer)
            except ValidationError:
                log.warning("the progress of pod %s is not understood", pod["metadata"]["name"])
        return said

    # --- acting

    async def _carry_out(
        self, body: Manifest, plan: Plan, observed: Observed
    ) -> tuple[Plan, Observed, Exception | None]:
        """Act. What the API server refuses, or fails over, becomes a condition; when it gives no answer, that is raised.

        Gates open before anything else, so that a pod takes traffic before another gives it up. What was made is
        observed at once: a status that does not know of it would be written twice.
        """
        made: list[Manifest] = []
        try:
            for pod, condition in plan.pod_conditions:
                meta = pod["metadata"]
                with suppress(NotFound, Conflict):  # gone since it was read, or replaced; the watch tells that
                    await self._cluster.patch_pod_condition(
                        meta["namespace"], meta["name"], meta["uid"], dict(condition)
                    )
            for manifest in plan.apply:
                made += await self._apply(manifest, observed)
            for live, annotations in plan.annotate:
                with suppress(NotFound, Conflict):
                    self._keep(await self._cluster.annotate(live, annotations))
            if plan.retrain is not None and not await self._retrain(body, *plan.retrain):
                plan = replace(plan, retrain=None)
            for live in plan.remove:
                meta = live["metadata"]
                if not meta.get("deletionTimestamp"):
                    await self._cluster.delete(gvk_of(live), meta["namespace"], meta["name"], meta["uid"])
        except InternalError as error:
            problem = Problem(ConditionType.ACCEPTED, "ServerFailed", f"{error.message[:1024]}. {FAILED_REMEDY}", True)
            return replace(plan, problem=problem, retrain=None), _with(observed, made), error
        except (NotOurs, Invalid, Forbidden) as error:
            message = f"{error.message}"[:1024]
            reason = "NameTaken" if isinstance(error, NotOurs) else "ChildRefused"
            log.warning("a child was refused (%s): %s", reason, message)
            plan = replace(plan, problem=Problem(ConditionType.ACCEPTED, reason, message), retrain=None)
            return plan, _with(observed, made), error
        return plan, _with(observed, made), None

    async def _apply(self, manifest: Manifest, observed: Observed) -> list[Manifest]:
        live = observed.child(manifest["kind"], manifest["metadata"]["name"])
        if live is not None and (manifest.get("immutable") or not differs(manifest, live)):
            return []
        if live is None and (manifest["kind"] in NEVER_CHANGED or manifest.get("immutable")):
            made, created = await self._cluster.make(manifest)
        else:
            made, created = await self._cluster.apply(manifest, known=live), False
        self._keep(made, created)
        return [made]

    async def _retrain(self, body: Manifest, fine_tune: Manifest, trace: Trace) -> bool:
        """Ask a FineTune for one more run, and say so on both. Not where it has changed since it was looked at."""
        try:
            self._keep(await self._cluster.annotate_unchanged(fine_tune, {ANNOTATION_RETRAIN: trace.text}, RETRAINS))
        except (Conflict, NotFound):
            return False
        meta = fine_tune["metadata"]
        asked = f"Retrain: {trace.deployment} asks FineTune {meta['name']} for a new run: {trace.why}"
        for regarding in (body, fine_tune):
            await self._cluster.record_event(regarding, "Normal", "Retrain", asked, trace.at)
        self._wake(Key(FINE_TUNE.kind, meta["namespace"], meta["name"]))
        return True

    def _keep(self, manifest: Manifest, created: bool = False) -> None:
        """Our own write is known at once, so that the next pass does not make it again."""
        self._cache.wrote(gvk_of(manifest), manifest, created)

    # --- stating

    async def _write_status(self, body: Manifest, status: Manifest, before: Sequence[Condition]) -> None:
        desired = {**body, "status": status}
        if status_differs(desired, body):
            try:
                self._keep(await self._cluster.set_status(desired))
            except NotFound:
                return  # deleted since the pass began, or replaced: its children go with it
            meta = body["metadata"]
            for key in self._cache.referrers(Key(body["kind"], meta["namespace"], meta["name"])):
                self._wake(key)
            await self._tell(body, status, before)

    async def _tell(self, body: Manifest, status: Manifest, before: Sequence[Condition]) -> None:
        """An Event for each condition that flipped."""
        known = {condition.type: condition.status for condition in before}
        flipped = [c for c in status.get("conditions", []) if c["status"] not in ("Unknown", known.get(c["type"]))]
        # The end of it all says what the conditions say that led to it at the same moment.
        for condition in [c for c in flipped if c["type"] == ConditionType.SUCCEEDED] or flipped:
            now = condition["status"]
            if now == "True" and condition["type"] in QUIET:
                continue
            type_ = "Normal" if now == "True" else "Warning"
            text = f"{condition['type']}: {condition.get('message', '')}".rstrip(": ")
            since = condition["lastTransitionTime"]
            await self._cluster.record_event(body, type_, condition["reason"], text, since)  # type: ignore[arg-type]

    async def _refuse(self, key: Key, body: Manifest, error: ValidationError) -> None:
        """What CEL could not refuse and the model does: a condition that names the field, and no retry.

        The rest of the status stays. It still tells of the last spec that was understood, and some of it is memory: an
        EdgeDeployment that forgot which revisions failed would try them again.
        """
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        meta = Metadata.model_validate(body["metadata"])
        text = f"{where}: {first['msg']}. Mend the field and apply again."
        types = [ConditionType.ACCEPTED] + ([ConditionType.SUCCEEDED] if key.kind != EDGE_DEPLOYMENT.kind else [])
        facts = [false(type, "InvalidSpec", text) for type in types]
        before = _conditions(body)
        new = {condition.type: condition for condition in merge(before, facts, meta.generation, self._clock())}
        conditions = [new.pop(condition.type, condition) for condition in before] + list(new.values())
        status = {**(body.get("status") or {}), "phase": "Failed", "conditions": [c.dump() for c in conditions]}
        await self._write_status(body, status, before)
        self._phase_seen(key, "Failed")


def _parse(kind: Kind, body: Manifest) -> Resource[Any, Any]:
    """The resource. A status that is not of our making must not stop anything: it is computed anew."""
    try:
        return kind.model.model_validate(body)
    except ValidationError as error:
        if all(problem["loc"][:1] != ("status",) for problem in error.errors(include_input=False)):
            raise
    return kind.model.model_validate({**body, "status": {}})


def _with(observed: Observed, made: Sequence[Manifest]) -> Observed:
    """What was observed, with these children as they are now."""
    names = {(child["kind"], child["metadata"]["name"]) for child in made}
    rest = [child for child in observed.children if (child["kind"], child["metadata"]["name"]) not in names]
    return replace(observed, children=(*rest, *made)) if made else observed


def _conditions(body: Manifest) -> list[Condition]:
    try:
        found = (body.get("status") or {}).get("conditions") or []
        return [Condition.model_validate(condition) for condition in found]
    except (ValidationError, AttributeError, TypeError):
        return []
