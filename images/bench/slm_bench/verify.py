"""Looks whether images are signed, before any node pulls them."""

from pathlib import Path

from slmkit import keys
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.trust import verified
from slmops.contract import Reason, Report, VerifyRun


def verify(run: VerifyRun, context: Context) -> Report:
    """Each image has to show what is asked of it. Raises RunFailed for the first that does not."""
    registry = Registry(run.registry, meter=context)
    context.stage("Verifying", of=len(run.images))
    wanted = {source.verify.key for source in run.images.values() if source.verify is not None}
    if len(wanted) != 1 or any(source.verify is None for source in run.images.values()):
        raise RunFailed(Reason.INVALID_CONFIGURATION, "images: each has to name the same key to be verified with")
    for number, (name, source) in enumerate(sorted(run.images.items()), 1):
        context.check()
        context.inputs[name] = verified(source, registry).uri
        context.step(number)
    return Report(outcome="Succeeded", signer=keys.fingerprint(keys.public_key(Path(wanted.pop()))))
