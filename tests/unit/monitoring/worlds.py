"""Servers in production, as they tell it, and an EdgeDeployment that watches them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from slmops.api.conditions import timestamp
from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import BINS, BUCKETS, SECOND_EDGES, Served
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.retraining import ANNOTATION_RETRAIN
from slmops.state import Heard, Manifest, Observed, Plan
from slmops.status.edgedeployment import edgedeployment_status
from tests.unit import builders
from tests.unit.copies import fresh
from tests.unit.fleet_builders import SETTINGS, live, manifest, node, pod, revision, servers

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NORMAL, OTHER = range(50), range(120, 170)
"""Buckets that the tokens of usual prompts, and of others, fall into."""
WATCH: dict[str, Any] = {"drift": {}, "minRequests": 100, "baseline": {"requests": 100}}
RETRAIN = {"fineTune": {"name": "farm-tuned"}, "minInterval": "24h"}


def histogram(size: int, at: int, count: int) -> tuple[int, ...]:
    """All in one bin."""
    return tuple(count if place == at else 0 for place in range(size))


def served(answers: int, content: Sequence[int] = NORMAL, seconds: float = 0.4, **fields: Any) -> Served:
    """So many answers, all alike, whose prompts have tokens in these buckets."""
    slow = next((at for at, edge in enumerate(SECOND_EDGES) if seconds <= edge), len(SECOND_EDGES))
    tokens = tuple(answers if place in content else 0 for place in range(BUCKETS))
    half = tuple(count // 2 for count in tokens)
    return Served.model_validate({
        "seconds": 3600, "answers": answers, "ran_seconds": answers * 0.1,
        "prompt_tokens": histogram(BINS["prompt_tokens"], 5, answers),
        "answer_tokens": histogram(BINS["answer_tokens"], 3, answers), "finish": (answers, 0),
        "prompt_content": tokens, "prompt_content_half": half, "answer_content": tokens, "answer_content_half": half,
        "request_seconds": histogram(BINS["request_seconds"], slow, answers),
        "first_token_seconds": histogram(BINS["first_token_seconds"], 5, answers),
    } | fields)  # fmt: skip


def asked(answers: int, prompts: Sequence[int]) -> Served:
    """Other prompts than usual; the answers are as they were."""
    usual = served(answers)
    other = served(answers, prompts)
    return usual.model_copy(
        update={"prompt_content": other.prompt_content, "prompt_content_half": other.prompt_content_half}
    )


class World:
    """An EdgeDeployment with one pool that serves, and the FineTune that a breach may have run again."""

    def __init__(self, **monitoring: Any) -> None:
        self.now = NOW
        body = manifest(monitoring={**WATCH, **monitoring})
        self.name = revision(EdgeDeployment.model_validate(body)).name
        body["status"] = {"stable": {"revision": self.name, "since": timestamp(NOW - timedelta(minutes=30))}}
        self.body = body
        self.nodes = [node("n0")]
        self.children = servers(EdgeDeployment.model_validate(body))
        self.pods = [pod(self.children[1], "n0")]
        self.fine_tune: Manifest | None = builders.reference("FineTune", "farm-tuned")
        self.heard: Heard | None = None
        self.plan = Plan()
        self.writes = 0
        self.runs: list[tuple[datetime, str]] = []
        """When a retrain was asked for, and what was stable."""

    def tell(self, window: Served | None, first: Served | None = None) -> None:
        """What the servers tell from now on."""
        self.heard = Heard(window, first, 1) if window is not None else None

    def operate(self, after: float = 60.0) -> Manifest:
        """One pass, so many seconds later. The status then."""
        self.now += timedelta(seconds=after)
        resource = EdgeDeployment.model_validate(self.body)
        references = {("FineTune", "farm-tuned"): self.fine_tune} if self.fine_tune else {}
        observed = Observed(
            children=tuple(self.children), pods=tuple(self.pods), nodes=tuple(self.nodes), references=references,
            heard={"farms": self.heard} if self.heard is not None else {},
        )  # fmt: skip
        self.plan = plan = plan_edgedeployment(resource, observed, SETTINGS, self.now)
        self._apply(plan)
        if plan.retrain is not None:
            assert self.fine_tune is not None
            meta = self.fine_tune["metadata"]
            self.fine_tune = {**self.fine_tune, "metadata": {**meta, "annotations": {
                ANNOTATION_RETRAIN: plan.retrain[1].text}}}  # fmt: skip
            self.runs.append((self.now, plan.retrain[1].revision))
        observed = replace(observed, children=tuple(self.children))
        status = edgedeployment_status(resource, observed, plan, self.now).dump()
        if status != self.body["status"]:
            self.writes += 1
        self.body = {**self.body, "status": fresh(status)}
        return status

    def _apply(self, plan: Plan) -> None:
        for child in plan.apply:
            key = (child["kind"], child["metadata"]["name"])
            self.children = [c for c in self.children if (c["kind"], c["metadata"]["name"]) != key] + [live(child)]
        gone = {(c["kind"], c["metadata"]["name"]) for c in plan.remove}
        self.children = [c for c in self.children if (c["kind"], c["metadata"]["name"]) not in gone]

    # --- the FineTune

    def runs_again(self) -> None:
        """The FineTune has seen what is asked of it, and runs."""
        self.fine_tune = self._stated("Unknown", "Running")

    def ends(self, status: str = "True", reason: str = "Completed") -> None:
        """Its run ends."""
        self.fine_tune = self._stated(status, reason)

    def seen(self) -> None:
        """The operator has looked at the FineTune, which it does at once."""
        assert self.fine_tune is not None
        said = (self.fine_tune["metadata"].get("annotations") or {}).get(ANNOTATION_RETRAIN)
        known = self.fine_tune["status"].get("retrain") or {}
        if said and known.get("why") != said:
            self.fine_tune = fresh(self.fine_tune)
            self.fine_tune["status"]["retrain"] = {"why": said, "at": timestamp(self.now)}

    def _stated(self, status: str, reason: str) -> Manifest:
        self.seen()
        assert self.fine_tune is not None
        found = fresh(self.fine_tune)
        found["status"]["conditions"] = [{"type": "Succeeded", "status": status, "reason": reason}]
        return found

    def promote(self, model: str) -> None:
        """Another revision has become stable."""
        self.body["spec"] = {**self.body["spec"], "model": manifest(model)["spec"]["model"]}
        resource = EdgeDeployment.model_validate(self.body)
        self.name = revision(resource).name
        kept = [
            child for child in self.children if child["kind"] == "ConfigMap" and "baseline" in child["metadata"]["name"]
        ]
        self.children = [*servers(resource), *kept]
        self.pods = [pod(self.children[1], "n0")]
        self.body["status"] = {**self.body["status"], "stable": {"revision": self.name, "since": timestamp(self.now)}}

    # --- what is seen

    @property
    def within(self) -> tuple[str, str, str]:
        """The condition: status, reason, message."""
        (found,) = [c for c in self.body["status"]["conditions"] if c["type"] == "WithinBounds"]
        return found["status"], found["reason"], found.get("message", "")

    @property
    def pool(self) -> Manifest:
        """What status says of the pool."""
        (found,) = self.body["status"]["monitoring"]["pools"]
        return dict(found)

    @property
    def retrain(self) -> Manifest | None:
        """What status says of the retrain."""
        found: Manifest | None = self.body["status"]["monitoring"].get("retrain")
        return found

    def baseline(self) -> Manifest | None:
        """The ConfigMap with the baseline."""
        return next((c for c in self.children if c["metadata"]["name"].startswith("chat-baseline-")), None)

    def settled(self, count: int = 200) -> None:
        """Usual requests until there is a baseline."""
        self.tell(served(count), served(count))
        self.operate()
        self.tell(served(count))
        self.operate()


def drifted(**monitoring: Any) -> World:
    """A world in which other prompts come than usual."""
    world = World(retrain=RETRAIN, **monitoring)
    world.settled()
    world.tell(asked(200, OTHER))
    world.operate()
    return world
