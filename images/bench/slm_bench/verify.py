"""Looks whether images are signed, before any node pulls them."""

from slmkit import trust
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import Reason, Report, VerifyRun


def verify(run: VerifyRun, context: Context) -> Report:
    """Each image has to show what is asked of it. Raises RunFailed for the first that does not."""
    registry = Registry(run.registry, meter=context)
    context.stage("Verifying", of=len(run.images))
    wanted = {
        (source.verify.key, source.verify.identity) for source in run.images.values() if source.verify is not None
    }
    if len(wanted) != 1 or any(source.verify is None for source in run.images.values()):
        raise RunFailed(Reason.INVALID_CONFIGURATION, "images: each has to name the same key or identity")
    for number, (name, source) in enumerate(sorted(run.images.items()), 1):
        context.check()
        context.inputs[name] = trust.verified(source, registry).uri
        context.step(number)
    return Report(outcome="Succeeded", signer=trust.seen[context.inputs[name]])
