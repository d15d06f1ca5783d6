"""For every reason that a user can see, what to do about it. A message without a remedy is half a message."""

from slmops.contract import Reason

REMEDIES: dict[str, str] = {
    Reason.INVALID_CONFIGURATION: "Mend the field that the message names. Where it names none of the spec's, operator and "
    "image do not fit together: install images of the operator's version, then set the annotation slmops.dev/retry.",
    Reason.INVALID_DATA: "Mend the named record, publish the data again, and change the spec or set the annotation "
    "slmops.dev/retry.",
    Reason.SOURCE_UNREACHABLE: "Check the address in the spec and the network path from the node to it, then set the "
    "annotation slmops.dev/retry.",
    Reason.SOURCE_NOT_FOUND: "Check repository, tag and path in the spec; once it is there, set the annotation "
    "slmops.dev/retry.",
    Reason.SOURCE_UNAUTHORIZED: "Name a Secret with the right to read in credentials of the source; a mended Secret takes "
    "effect with the annotation slmops.dev/retry.",
    Reason.UNSAFE_SOURCE: "Publish models as safetensors with plain tokenizer files, in a registry or at a public address; "
    "pickles and code are never loaded, and addresses inside the network are asked only where spec.run.egress lists them.",
    Reason.EGRESS_REFUSED: "List the host and its port in spec.run.egress (of a Distillation's labelling in "
    "spec.labelling.egress), or use another source.",
    Reason.LICENSE_REFUSED: "Use a model with a licence that spec.licensePolicy lets in, or, once somebody who may has "
    "read it, add that licence to spec.licensePolicy.allow.",
    Reason.KEY_UNUSABLE: "Make the key pair with: cosign generate-key-pair k8s://NAMESPACE/NAME, and name that Secret in "
    "spec.output.sign; to verify, name a Secret or ConfigMap that holds cosign.pub in verify; without a key, name in "
    "trustedRoot a ConfigMap that holds the instance's trusted_root.json. Then set the annotation slmops.dev/retry.",
    Reason.IDENTITY_REFUSED: "Name in spec.output.sign.keyless the Fulcio that knows this cluster's issuer (Sigstore's own "
    "knows those of the large clouds), the audience that it asks for, and a service account in serviceAccountName; where a "
    "token ran out, set the right time on the node. Then set the annotation slmops.dev/retry. Or sign with a key: secret.",
    Reason.SIGNATURE_MISSING: "Have whoever publishes it sign it (spec.output.sign of the resource that makes it, or: "
    "cosign sign), then set the annotation slmops.dev/retry; or name another source.",
    Reason.SIGNATURE_INVALID: "Do not use it before you know who published it. If it is what you meant, name its "
    "publisher's public key or identity in verify, or have it signed with yours, then set the annotation slmops.dev/retry.",
    Reason.PROVENANCE_MISSING: "Set spec.output.sign on the resource that makes it, whose provenance is signed with it, or "
    "attach one with: cosign attest --type slsaprovenance1; then set the annotation slmops.dev/retry. Or leave out "
    "verify.provenance.",
    "NotSigned": "Install images of the operator's version, then delete this Job: kubectl delete job -l "
    "slmops.dev/name=NAME,slmops.dev/role=ROLE, with role sign, or verify of an EdgeDeployment.",
    Reason.UNSUPPORTED_MODEL: "Change the setting that the message names, or use another model; where it lists supported "
    "architectures, one of those.",
    Reason.TEACHER_UNREACHABLE: "Check spec.teacher.endpoint.url from inside the cluster, then set the annotation "
    "slmops.dev/retry.",
    Reason.TOO_FEW_ANSWERS: "RateLimited, TimedOut and ServerError pass: lower spec.teacher.endpoint.concurrency, or set "
    "the annotation slmops.dev/retry once the teacher answers. Refused, Filtered and ContextTooLong do not: change those "
    "prompts, or lower spec.teacher.endpoint.minSuccessRatio. CutShort: raise spec.teacher.sampling.maxTokens, which asks "
    "anew. Answers that are there are used again where spec.run.volume or spec.labelling.volume keeps them; without one, "
    "set it first, as each try asks and pays for all prompts.",
    Reason.REGISTRY_REFUSED: "Name a Secret with the right to push to spec.output.repository in "
    "spec.output.credentials; a mended Secret takes effect with the annotation slmops.dev/retry.",
    Reason.REGISTRY_UNREACHABLE: "Check the registry's host name and that the node reaches it, then set the "
    "annotation slmops.dev/retry.",
    Reason.BACKEND_UNAVAILABLE: "Take another format, or install a quantizer image that has the tool chain; "
    "quantizer.backends of the chart says which it has.",
    Reason.CONVERSION_FAILED: "Change the setting that the message names, or take another algorithm or precision; "
    "where it names none, the Job's log has the tool chain's own words.",
    Reason.VERIFICATION_FAILED: "The converted model does not answer like the original; try another precision or "
    "algorithm.",
    Reason.TRAINING_DIVERGED: "Lower spec.training.learningRate, or raise warmupRatio.",
    Reason.VOCABULARY_MISMATCH: "Leave spec.student.architecture.tokenizer out, so that the student takes the teacher's; "
    "or take a student of the teacher's family; or use objective Labels, which needs words alone.",
    Reason.LAYER_NOT_FOUND: "Name layers that both models have in spec.objective.layers, counted from 1, or leave it out.",
    Reason.INVALID_TEMPLATE: "Mend spec.data.template, or leave it out to take the base's own.",
    Reason.ADAPTER_UNUSABLE: "Look at the Job's log for the engine's own words; use spec.engine: PyTorch, or another "
    "learning rate.",
    Reason.ADAPTER_MISMATCH: "Train it on the very model that spec.model names, with method LoRA or QLoRA; or leave it "
    "out of spec.adapters, and quantize its merged model.",
    Reason.OUT_OF_MEMORY: "Raise spec.run.resources.limits.memory, or lower training.batchSize or maxSequenceLength.",
    Reason.DISK_FULL: "Raise spec.run.volume.size where the message names run.volume (of a labelling: "
    "spec.labelling.volume.size); else use a node with more ephemeral storage.",
    Reason.BUDGET_EXCEEDED: "Raise spec.budget.gpuHours or spec.budget.max, and the run starts again by itself; or ask "
    "for less with training.epochs or training.maxSteps.",
    Reason.TERMINATED: "The node took the pod away; set the annotation slmops.dev/retry to try again.",
    Reason.TARGET_UNREACHABLE: "The server on the node did not answer the benchmark; look at its pod's log.",
    Reason.INTERNAL_ERROR: "This is a defect; the Job's log has the trace. Please report it.",
    "ImageUnavailable": "Push the image, or correct spec.run.image; the run starts by itself once the image is there.",
    "DeadlineExceeded": "Raise spec.run.deadline and set the annotation slmops.dev/retry, or give the Job more resources.",
    "ContainerFailed": "Look at the pod's log; set the annotation slmops.dev/retry to try again.",
    "JobFailed": "Look at the Job's events; set the annotation slmops.dev/retry to try again.",
    "ReportMissing": "Set the annotation slmops.dev/retry to run the step again.",
    "SearchFailed": "Narrow spec.search.space (most often: a smaller max of learningRate), or raise "
    "spec.run.resources.limits.memory; the trials' Jobs have their logs. Then change the spec or set the annotation "
    "slmops.dev/retry.",
    "EndlessAnswers": "Take a base whose chat template ends an answer with a special token of its tokenizer, or give such "
    "a template in spec.data.template of a FineTune. Until then clients have to stop by text.",
    "Overfitting": "Set spec.training.earlyStopping to keep the weights of the best step, train for fewer epochs, or add "
    "data.",
    "GateFailed": "Train longer or on more data, choose another variant, or change the bound in spec.gates.",
    "GateInconclusive": "The records are too few to tell on which side of its bound a figure lies, or it was not measured: "
    "raise spec.evaluation.samples, with as many records in spec.evaluation.data, or change the bound in spec.gates.",
    "NotComparable": "More records of the same kind do not help. A teacher behind an address is judged by records with "
    "answers alone: give some in spec.evaluation.data (or answers in spec.data.validation); nobody can measure its time, "
    "memory or weights. Where a reference answers nothing rightly there is no share of it. Or take a gate on the model "
    "itself (Accuracy, InferenceTime, PeakMemory, WeightBytes) in spec.gates.",
}


def with_remedy(reason: str, message: str) -> str:
    """The message with what to do about it."""
    remedy = REMEDIES.get(reason, "")
    if not message:
        return remedy
    return f"{message.rstrip('.')}. {remedy}".strip() if remedy else message
