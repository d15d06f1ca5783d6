"""Bad manifests, and word for word what a user is told when applying them.

Each is one change to an example: ``path: value``, where a value of None takes the field away.
"""

from pathlib import Path
from typing import Any

import yaml

DISTILLATION = ("Distillation", "farm-assistant")
FINETUNE = ("FineTune", "farm-irrigation")
QUANTIZED = ("QuantizedModel", "farm-irrigation")
EDGE = ("EdgeDeployment", "farms")

REFUSALS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text())
"""Text by case."""
DIGEST = f"sha256:{'0' * 64}"
GATE = {"metric": "ExactMatch", "min": "80%"}
POOL = {"selector": {"matchLabels": {"a": "b"}}}

PACKED = {"name": "a", "uri": "oci://registry.example/slm/adapter:v1"}
ADAPTER: dict[str, Any] = {"name": "a", "data": {"train": {"uri": "oci://registry.example/slm/data:v1"}}}
SEVERAL = {"spec.data": None, "spec.adapters": [ADAPTER]}
TEXTS = {"spec.data.train.format": "Text", "spec.data.validation": None}
RATE: dict[str, Any] = {"name": "learningRate", "log": {"min": 0.001, "max": 0.01}}
SEARCH: dict[str, Any] = {"space": [RATE]}
RETAINED = {"metric": "BaseAccuracyRetained", "min": "95%"}

CASES: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    # What does not go together.
    "a checkpoint and no volume for it": (FINETUNE, {"spec.training.checkpoint": {"everySteps": 10}}),
    "a volume of no size": (FINETUNE, {"spec.run.volume": {"storageClass": "fast"}}),
    "two teachers": (DISTILLATION, {"spec.teacher.model": {"uri": "oci://registry.example/slm/teacher:v1"}}),
    "no teacher": (DISTILLATION, {"spec.teacher.endpoint": None}),
    "logits of a teacher that is an endpoint": (DISTILLATION, {"spec.objective": {"type": "Logits"}}),
    "features of a teacher that is an endpoint": (DISTILLATION, {"spec.objective": {"type": "Features"}}),
    "layers without features": (DISTILLATION, {"spec.objective": {"layers": [{"student": 1, "teacher": 1}]}}),
    "attention without features": (DISTILLATION, {"spec.objective": {"attention": True}}),
    "layer that the student does not have": (
        DISTILLATION,
        {
            "spec.teacher": {"model": {"uri": "oci://registry.example/slm/teacher:v1"}},
            "spec.objective": {"type": "Features", "layers": [{"student": 3, "teacher": 6}]},
        },
    ),
    "packed records of a teacher's probabilities": (
        DISTILLATION,
        {
            "spec.teacher": {"model": {"uri": "oci://registry.example/slm/teacher:v1"}},
            "spec.training.packing": True,
            "spec.objective": {"type": "Logits"},
        },
    ),
    "two ways to hold out": (DISTILLATION, {"spec.data.validationSplit": 0.1}),
    "heads that do not divide the width": (DISTILLATION, {"spec.student.architecture.attentionHeads": 5}),
    "base of two kinds": (FINETUNE, {"spec.base.uri": "oci://registry.example/slm/student:v1"}),
    "credentials without an address": (FINETUNE, {"spec.base.credentials": {"secret": "registry-login"}}),
    "server of a source that has none": (FINETUNE, {"spec.data.train.endpoint": "https://minio.example:9000"}),
    "server with a path": (
        FINETUNE,
        {"spec.data.train": {"uri": "s3://bucket/x", "endpoint": "https://minio.example/x"}},
    ),
    "one key for an object store": (
        FINETUNE,
        {"spec.data.train": {"uri": "s3://bucket/x", "credentials": {"secret": "minio", "key": "token"}}},
    ),
    "digest that is none": (FINETUNE, {"spec.data.train.uri": "https://data.example/x.jsonl#sha256=12"}),
    "digest of a hub": (FINETUNE, {"spec.data.train.uri": f"hf://org/data#sha256={'0' * 64}"}),
    "signature of what a hub holds": (
        FINETUNE,
        {"spec.base": {"uri": "hf://org/model", "verify": {"secret": "cosign"}}},
    ),
    "a key from two places": (FINETUNE, {"spec.base.verify": {"secret": "cosign", "configMap": "publisher"}}),
    "a key from nowhere": (QUANTIZED, {"spec.model.verify": {"provenance": True}}),
    "credentials for a signature that nobody asks for": (
        EDGE,
        {"spec.model": {"image": f"registry.example/slm/x@{DIGEST}", "credentials": {"secret": "registry-login"}}},
    ),
    "signing with nothing": (FINETUNE, {"spec.output.sign": {}}),
    "signing with a key and without": (FINETUNE, {"spec.output.sign": {"secret": "cosign", "keyless": {}}}),
    "an instance that nobody trusts": (
        FINETUNE,
        {"spec.output.sign": {"keyless": {"fulcio": "https://fulcio.example"}}},
    ),
    "a certificate without TLS": (
        FINETUNE,
        {"spec.output.sign": {"keyless": {"fulcio": "http://f.example", "trustedRoot": {"configMap": "lab"}}}},
    ),
    "a token for the API server": (
        FINETUNE,
        {"spec.output.sign": {"keyless": {"audience": "https://kubernetes.default.svc"}}},
    ),
    "an identity of nobody's": (QUANTIZED, {"spec.model.verify": {"keyless": {"identity": "a@farm.example"}}}),
    "an identity with blanks": (
        QUANTIZED,
        {"spec.model.verify": {"keyless": {"identity": "a b", "issuer": "https://issuer.example"}}},
    ),
    "an issuer that is no address": (
        QUANTIZED,
        {"spec.model.verify": {"keyless": {"identity": "a@farm.example", "issuer": "issuer.example"}}},
    ),
    "policy without licences": (FINETUNE, {"spec.licensePolicy": {}}),
    "licence in words": (FINETUNE, {"spec.licensePolicy": {"allow": ["Apache 2.0"]}}),
    "peer without a name": (FINETUNE, {"spec.run.egress": [{"port": 443}]}),
    "peer that is a URL": (FINETUNE, {"spec.run.egress": [{"host": "https://data.example"}]}),
    "peer of no range": (FINETUNE, {"spec.run.egress": [{"cidr": "10.0.0.0/33"}]}),
    "peer on the node's own link": (FINETUNE, {"spec.run.egress": [{"cidr": "169.254.169.254/32", "port": 80}]}),
    "peer on the node's own link by its address": (
        FINETUNE,
        {"spec.run.egress": [{"host": "169.254.169.254", "port": 80}]},
    ),
    "peer on the node's own link through a translator": (
        FINETUNE,
        {"spec.run.egress": [{"cidr": "64:ff9b::a9fe:a9fe/128", "port": 80}]},
    ),
    "peer whose address is one number": (FINETUNE, {"spec.run.egress": [{"host": "2852039166", "port": 80}]}),
    "adapter settings for full training": (FINETUNE, {"spec.method": "Full"}),
    "settings of four bits for another method": (FINETUNE, {"spec.qlora": {"quantType": "NF4"}}),
    "margin of nothing": (FINETUNE, {"spec.loss": {"margin": 1}}),
    "contrast without worse answers": (FINETUNE, {"spec.loss": {"type": "Contrastive"}}),
    "pairs of answers in a row": (
        FINETUNE,
        {
            "spec.loss": {"type": "Contrastive"},
            "spec.data.train.format": "PromptCompletion",
            "spec.training.packing": True,
        },
    ),
    "contrast by Olive": (
        FINETUNE,
        {"spec.loss": {"type": "Contrastive"}, "spec.data.train.format": "PromptCompletion", "spec.engine": "Olive"},
    ),
    "a gate on answers to texts": (FINETUNE, TEXTS),
    "an adapter's gate on answers to texts": (
        FINETUNE,
        SEVERAL | {"spec.adapters": [{**ADAPTER, "data": {"train": ADAPTER["data"]["train"] | {"format": "Text"}}}]},
    ),
    "answers to texts": (
        FINETUNE,
        TEXTS | {"spec.gates": None, "spec.evaluation": {"metrics": ["Perplexity", "F1"]}},
    ),
    "trials by answers to texts": (
        FINETUNE,
        TEXTS
        | {
            "spec.gates": None,
            "spec.search": SEARCH | {"objective": {"metric": "ExactMatch", "direction": "Maximize"}, "pruner": "None"},
        },
    ),
    "texts to answer": (
        DISTILLATION,
        {"spec.evaluation": {"data": {"uri": "oci://registry.example/slm/data:v1", "format": "Text"}}},
    ),
    "data and adapters": (FINETUNE, {"spec.adapters": [ADAPTER]}),
    "neither data nor adapters": (FINETUNE, {"spec.data": None}),
    "two adapters of one name": (FINETUNE, SEVERAL | {"spec.adapters": [ADAPTER, ADAPTER]}),
    "no adapters": (FINETUNE, SEVERAL | {"spec.adapters": []}),
    "adapters that train all weights": (FINETUNE, SEVERAL | {"spec.method": "Full", "spec.lora": None}),
    "adapters that are merged": (FINETUNE, SEVERAL | {"spec.merge": True}),
    "side by side with nobody": (FINETUNE, {"spec.parallelism": 2}),
    "one held-out set for all adapters": (
        FINETUNE,
        SEVERAL | {"spec.evaluation": {"data": {"uri": "oci://registry.example/slm/data:v1"}}},
    ),
    "filters of an adapter before Olive": (
        FINETUNE,
        SEVERAL | {"spec.engine": "Olive", "spec.adapters": [{**ADAPTER, "data": ADAPTER["data"] | {"filters": {}}}]},
    ),
    "layers of an adapter by Olive's QLoRA": (
        FINETUNE,
        SEVERAL
        | {
            "spec.engine": "Olive",
            "spec.method": "QLoRA",
            "spec.lora": None,
            "spec.adapters": [ADAPTER | {"lora": {"targetModules": ["q_proj"]}}],
        },
    ),
    "adapters of contrast without worse answers": (FINETUNE, SEVERAL | {"spec.loss": {"type": "Contrastive"}}),
    "gate on a base task that is not there": (FINETUNE, {"spec.gates.0": RETAINED}),
    "an adapter's gate on a base task that is not there": (
        FINETUNE,
        SEVERAL | {"spec.adapters": [ADAPTER | {"gates": [RETAINED]}]},
    ),
    "gate on a base task of a student": (DISTILLATION, {"spec.gates.0": RETAINED}),
    "gate on a base task of a quantized model": (QUANTIZED, {"spec.gates.0": RETAINED}),
    "adapters of one name in an image": (QUANTIZED, {"spec.adapters": [PACKED, PACKED]}),
    "adapter without a name": (QUANTIZED, {"spec.adapters": [{"uri": PACKED["uri"]}]}),
    "adapter from two places": (QUANTIZED, {"spec.adapters": [PACKED | {"fineTune": {"name": "farm-irrigation"}}]}),
    "adapter from nowhere": (QUANTIZED, {"spec.adapters": [{"name": "a"}]}),
    "adapters in a format that has no place for them": (
        QUANTIZED,
        {"spec.adapters": [PACKED], "spec.variants.0.format": "Safetensors"},
    ),
    "adapters of a model that is pruned": (
        QUANTIZED,
        {"spec.adapters": [PACKED], "spec.compress": {"prune": {"sparsity": 0.5}}},
    ),
    "adapters of a model that is scaled": (
        QUANTIZED,
        {
            "spec.adapters": [PACKED],
            "spec.variants.0.algorithm": "AWQ",
            "spec.calibration": {"data": {"uri": "oci://registry.example/slm/data:v1"}},
        },
    ),
    "too many adapters in an image": (QUANTIZED, {"spec.adapters": [PACKED | {"name": f"a{i}"} for i in range(17)]}),
    "reduction of the size against nothing": (QUANTIZED, {"spec.gates.0": {"metric": "SizeReduction", "min": "75%"}}),
    "baseline of another metric": (QUANTIZED, {"spec.gates.0": {"metric": "F1", "min": "75%", "baseline": "FP16"}}),
    "search for several adapters": (FINETUNE, SEVERAL | {"spec.search": SEARCH}),
    "search by Olive": (FINETUNE, {"spec.engine": "Olive", "spec.search": SEARCH}),
    "trials on two nodes": (FINETUNE, {"spec.run.nodes": 2, "spec.search": SEARCH}),
    "search for a rank where there is none": (
        FINETUNE,
        {"spec.method": "Full", "spec.lora": None, "spec.search": {"space": [{"name": "lora.rank", "choice": [8]}]}},
    ),
    "search for nothing": (FINETUNE, {"spec.search": {"space": []}}),
    "search for what there is not": (FINETUNE, {"spec.search": {"space": [{"name": "momentum", "choice": [1]}]}}),
    "search for one thing in two ways": (FINETUNE, {"spec.search": {"space": [RATE, RATE]}}),
    "values in two ways": (FINETUNE, {"spec.search": {"space": [RATE | {"choice": [1]}]}}),
    "no values": (FINETUNE, {"spec.search": {"space": [{"name": "epochs"}]}}),
    "no choice": (FINETUNE, {"spec.search": {"space": [{"name": "epochs", "choice": []}]}}),
    "choice of a fraction without quotes": (
        FINETUNE,
        {"spec.search": {"space": [{"name": "warmupRatio", "choice": [0.5]}]}},
    ),
    "choice of nonsense": (FINETUNE, {"spec.search": {"space": [{"name": "scheduler", "choice": ["a b"]}]}}),
    "most below the least": (
        FINETUNE,
        {"spec.search": {"space": [{"name": "learningRate", "log": {"min": 0.1, "max": 0.01}}]}},
    ),
    "logarithm from zero": (
        FINETUNE,
        {"spec.search": {"space": [{"name": "weightDecay", "log": {"min": 0, "max": 1}}]}},
    ),
    "whole numbers for a share": (
        FINETUNE,
        {"spec.search": {"space": [{"name": "warmupRatio", "integer": {"min": 1, "max": 2}}]}},
    ),
    "fractions of a count": (
        FINETUNE,
        {"spec.search": {"space": [{"name": "epochs", "uniform": {"min": 1, "max": 2}}]}},
    ),
    "more trials at once than trials": (FINETUNE, {"spec.search": SEARCH | {"trials": 2, "parallelism": 3}}),
    "the greatest loss": (FINETUNE, {"spec.search": SEARCH | {"objective": {"direction": "Maximize"}}}),
    "pruning by what is not measured": (
        FINETUNE,
        {"spec.search": SEARCH | {"objective": {"metric": "ExactMatch", "direction": "Maximize"}}},
    ),
    "unknown task": (FINETUNE, {"spec.task": "Translation"}),
    "full training by Olive": (FINETUNE, {"spec.method": "Full", "spec.lora": None, "spec.engine": "Olive"}),
    "layers of Olive's QLoRA": (
        FINETUNE,
        {"spec.method": "QLoRA", "spec.engine": "Olive", "spec.lora": {"targetModules": ["q_proj"]}},
    ),
    "two nodes for Olive": (FINETUNE, {"spec.engine": "Olive", "spec.run.nodes": 2}),
    "filters before Olive": (FINETUNE, {"spec.engine": "Olive", "spec.data.filters": {"maxTokens": 9}}),
    "packing by Olive": (FINETUNE, {"spec.engine": "Olive", "spec.training.packing": True}),
    "early stopping by Olive": (FINETUNE, {"spec.engine": "Olive", "spec.training.earlyStopping": {"patience": 2}}),
    "adapter on a new student": (DISTILLATION, {"spec.student.method": "LoRA"}),
    "adapter settings for a student that learns whole": (DISTILLATION, {"spec.student.lora": {"rank": 8}}),
    "early stopping without patience": (FINETUNE, {"spec.training.earlyStopping": {"patience": 0}}),
    "unknown four-bit format": (FINETUNE, {"spec.method": "QLoRA", "spec.qlora": {"quantType": "INT4"}}),
    "gate with both bounds": (FINETUNE, {"spec.gates.0.max": "90%"}),
    "gate without a bound": (FINETUNE, {"spec.gates.0.min": None}),
    "bound without a price": (FINETUNE, {"spec.budget": {"gpuHours": 2, "max": 10}}),
    "budget of nothing": (FINETUNE, {"spec.budget": {}}),
    "price of nothing": (DISTILLATION, {"spec.budget": {"price": {"currency": "EUR"}}}),
    "algorithm for another precision": (QUANTIZED, {"spec.variants.1.algorithm": "KQuant"}),
    "algorithm for another format": (
        QUANTIZED,
        {
            "spec.evaluation": None,
            "spec.gates": None,
            "spec.variants.0.format": "GGUF",
            "spec.variants.0.algorithm": "AWQ",
            "spec.calibration": {"data": {"uri": "oci://registry.example/slm/data:v1"}},
        },
    ),
    "levels of GGUF for another format": (
        QUANTIZED,
        {"spec.variants.0.format": "Safetensors", "spec.variants.0.algorithm": "KQuant"},
    ),
    "calibration without data": (QUANTIZED, {"spec.variants.0.algorithm": "GPTQ"}),
    "pruning by what nobody watches": (
        QUANTIZED,
        {"spec.compress": {"prune": {"method": "Wanda", "structure": "2:4"}}},
    ),
    "pruning that nobody would see": (
        QUANTIZED,
        {
            "spec.evaluation": None,
            "spec.gates": None,
            "spec.variants.0.format": "GGUF",
            "spec.compress": {"prune": {"sparsity": 0.3}},
        },
    ),
    "pruning by a share and by a structure": (
        QUANTIZED,
        {"spec.compress": {"prune": {"sparsity": 0.5, "structure": "2:4"}}},
    ),
    "pruning of nothing said": (QUANTIZED, {"spec.compress": {"prune": {}}}),
    "compression of nothing": (QUANTIZED, {"spec.compress": {}}),
    "pruning of everything": (QUANTIZED, {"spec.compress": {"prune": {"sparsity": 1}}}),
    "pruning in a structure that keeps more than there is": (
        QUANTIZED,
        {"spec.compress": {"prune": {"structure": "5:4"}}},
    ),
    "half precision on a CPU": (QUANTIZED, {"spec.variants.1.precision": "FP16"}),
    "a GPU for another format": (
        QUANTIZED,
        {"spec.variants.0.format": "Safetensors", "spec.variants.0.target": {"device": "CUDA"}},
    ),
    "measuring what nothing here runs": (QUANTIZED, {"spec.variants.0.format": "GGUF"}),
    "block size of a format with its own": (
        QUANTIZED,
        {
            "spec.evaluation": None,
            "spec.gates": None,
            "spec.variants.0.format": "GGUF",
            "spec.variants.0.blockSize": 64,
        },
    ),
    "block size for another precision": (QUANTIZED, {"spec.variants.1.blockSize": 64}),
    "range for another precision": (QUANTIZED, {"spec.variants.1.symmetric": False}),
    "gates without data to measure on": (QUANTIZED, {"spec.evaluation": None}),
    "measuring on no data": (QUANTIZED, {"spec.evaluation.data": None}),
    "gate without benchmark": (EDGE, {"spec.benchmark": None}),
    "percentile of a throughput": (EDGE, {"spec.gates.1.percentile": 95}),
    "regression and bound in one gate": (EDGE, {"spec.gates.1.min": 30}),
    "model from nowhere": (EDGE, {"spec.model": {}}),
    "retrain on drift that nobody looks at": (EDGE, {"spec.monitoring": {"retrain": {"fineTune": {"name": "a"}}}}),
    "retrain on bounds that there are none of": (
        EDGE,
        {"spec.monitoring": {"retrain": {"fineTune": {"name": "a"}, "on": ["Bounds"]}}},
    ),
    "retrain at every turn": (
        EDGE,
        {"spec.monitoring": {"drift": {}, "retrain": {"fineTune": {"name": "a"}, "minInterval": "30s"}}},
    ),
    "window longer than servers remember": (EDGE, {"spec.monitoring": {"window": "2d"}}),
    "servers asked without a pause": (EDGE, {"spec.monitoring": {"interval": "1s"}}),
    "percentile of a share": (
        EDGE,
        {"spec.monitoring": {"bounds": [{"metric": "ErrorRate", "percentile": 99, "max": "5%"}]}},
    ),
    "time without a unit": (EDGE, {"spec.monitoring": {"bounds": [{"metric": "RequestLatency", "max": 2}]}}),
    "share without its sign": (EDGE, {"spec.monitoring": {"bounds": [{"metric": "ErrorRate", "max": 5}]}}),
    "last wave is not everything": (EDGE, {"spec.strategy.waves.1.nodes": "50%"}),
    # Numbers and their units.
    "temperature of 3": (DISTILLATION, {"spec.teacher.sampling.temperature": 3}),
    "no epochs": (FINETUNE, {"spec.training.epochs": 0}),
    "epochs below zero": (FINETUNE, {"spec.training.epochs": -1}),
    "epochs in quotes": (FINETUNE, {"spec.training.epochs": "3"}),
    "learning rate of zero": (FINETUNE, {"spec.training.learningRate": 0}),
    "bound that is no number": (FINETUNE, {"spec.gates.0.min": "good"}),
    "bound below zero": (FINETUNE, {"spec.gates.0.min": -5}),
    "deadline without a unit": (FINETUNE, {"spec.run.deadline": "90"}),
    "memory in words": (FINETUNE, {"spec.run.resources": {"limits": {"memory": "lots"}}}),
    "memory below zero": (FINETUNE, {"spec.run.resources": {"limits": {"memory": -1}}}),
    "hours with a unit": (FINETUNE, {"spec.budget": {"gpuHours": "2h"}}),
    "currency by its sign": (FINETUNE, {"spec.budget": {"price": {"perGpuHour": "2.50", "currency": "€"}}}),
    "wave that somebody may approve": (EDGE, {"spec.strategy.waves.0.approval": "Optional"}),
    "waves of what has none": (EDGE, {"spec.strategy.type": "BlueGreen"}),
    "something to hold that nothing was switched for": (EDGE, {"spec.strategy.hold": "10m"}),
    "half of what is switched at once": (EDGE, {"spec.strategy": {"type": "BlueGreen", "promotionScope": "Pool"}}),
    "choice without a measurement": (
        EDGE,
        {"spec.pools.0.variant": "Auto", "spec.benchmark": None, "spec.gates": None},
    ),
    "choice of one image": (
        EDGE,
        {"spec.pools.0.variant": "Auto", "spec.model": {"image": f"registry.example/x@sha256:{'ab' * 32}"}},
    ),
    "embeddings of another runtime": (
        QUANTIZED,
        {
            "spec.variants.0.format": "GGUF",
            "spec.variants.0.embeddings": True,
            "spec.evaluation": None,
            "spec.gates": None,
        },
    ),
    "adapter of an engine that knows none": (
        EDGE,
        {"spec.runtime.engine": "FoundryLocal", "spec.pools.0.adapter": "irrigation"},
    ),
    "share of what is no comparison": (EDGE, {"spec.strategy": {"type": "AllAtOnce", "split": "50%"}}),
    "two on a node that holds one": (EDGE, {"spec.strategy": {"type": "BlueGreen", "cutOver": "StopThenDownload"}}),
    "comparison with nothing": (EDGE, {"spec.strategy": {"type": "AB", "split": "100%"}}),
    "nobody's turn": (EDGE, {"spec.strategy.maxUnavailable": "0%"}),
    "window that is never open": (EDGE, {"spec.strategy.window": {"from": "22:00", "to": "22:00"}}),
    "window without its end": (EDGE, {"spec.strategy.window": {"from": "22:00"}}),
    "hour that no clock shows": (EDGE, {"spec.strategy.window": {"from": "24:00", "to": "05:00"}}),
    "time zone with blanks": (
        EDGE,
        {"spec.strategy.window": {"from": "22:00", "to": "05:00", "timeZone": "Central Time"}},
    ),
    "wave of no node": (EDGE, {"spec.strategy.waves.0.nodes": 0}),
    "wave of more than all nodes": (EDGE, {"spec.strategy.waves.0.nodes": "101%"}),
    "wave of fewer than no nodes": (EDGE, {"spec.strategy.waves.0.nodes": -1}),
    "noise without a unit": (EDGE, {"spec.benchmark.maxNoise": "50"}),
    "one round": (EDGE, {"spec.benchmark.rounds": 1}),
    "node port out of range": (EDGE, {"spec.runtime.nodePort": 80}),
    # Words from a list, and slips of the pen.
    "unknown field": (FINETUNE, {"spec.training.epoch": 3}),
    "unknown method": (FINETUNE, {"spec.method": "Prefix"}),
    "unknown format": (QUANTIZED, {"spec.variants.0.format": "TensorRT"}),
    "unknown precision": (QUANTIZED, {"spec.variants.0.precision": "INT2"}),
    "unknown metric": (EDGE, {"spec.gates.0.metric": "Happiness"}),
    "answer in words": (EDGE, {"spec.paused": "yes"}),
    "nothing to publish to": (FINETUNE, {"spec.output": None}),
    # Addresses.
    "teacher address without scheme": (DISTILLATION, {"spec.teacher.endpoint.url": "teacher:8080/v1"}),
    "teacher address with a password": (DISTILLATION, {"spec.teacher.endpoint.url": "https://me:secret@teacher/v1"}),
    "source of an unknown scheme": (FINETUNE, {"spec.base": {"uri": "ftp://example.com/model"}}),
    "source on the node's own disk": (FINETUNE, {"spec.data.train.uri": "file:///etc/passwd"}),
    "source with a password": (FINETUNE, {"spec.data.train.uri": "https://me:secret@example.com/train.jsonl"}),
    "source with a new line": (FINETUNE, {"spec.data.train.uri": "https://example.com/\nX-Header: 1"}),
    "source that looks like an option": (FINETUNE, {"spec.data.train.uri": "oci://--insecure"}),
    "file outside of the source": (FINETUNE, {"spec.data.train.path": "a/../../secrets/token"}),
    "file by its absolute path": (FINETUNE, {"spec.data.train.path": "/etc/passwd"}),
    "column of another format": (FINETUNE, {"spec.data.train.columns": {"prompt": "question"}}),
    "column without a name": (FINETUNE, {"spec.data.train.columns": {"messages": ""}}),
    "labels of a format without": (FINETUNE, {"spec.data.train.labels": ["yes", "no"]}),
    "one label": (FINETUNE, {"spec.data.train.format": "Classification", "spec.data.train.labels": ["yes"]}),
    "data of an unknown format": (FINETUNE, {"spec.data.train.format": "Pairs"}),
    "several samples that are all the same": (DISTILLATION, {"spec.teacher.sampling.samples": 3}),
    "thoughts and density": (
        DISTILLATION,
        {"spec.task": "Summarization", "spec.teacher.prompt": {"chainOfThought": True, "chainOfDensity": True}},
    ),
    "thoughts for a summary": (
        DISTILLATION,
        {"spec.task": "Summarization", "spec.teacher.prompt": {"chainOfThought": True}},
    ),
    "density without a summary": (DISTILLATION, {"spec.teacher.prompt": {"chainOfDensity": True}}),
    "length of no summary": (DISTILLATION, {"spec.teacher.prompt": {"maxSummaryLength": 50}}),
    "engine of an endpoint": (DISTILLATION, {"spec.teacher.engine": "VLLM"}),
    "success of more than all": (DISTILLATION, {"spec.teacher.endpoint.minSuccessRatio": 1.5}),
    "measure of an unknown kind": (FINETUNE, {"spec.evaluation.metrics": ["Happiness"]}),
    "gate on what is not measured": (FINETUNE, {"spec.gates.0.metric": "Happiness"}),
    "agreement of more samples than there are": (DISTILLATION, {"spec.data.filters": {"agreement": 2}}),
    "shortest records longer than the longest": (FINETUNE, {"spec.data.filters": {"minTokens": 9, "maxTokens": 8}}),
    "near duplicates in percent": (FINETUNE, {"spec.data.filters": {"nearDuplicates": 80}}),
    "prompts without prompts": (DISTILLATION, {"spec.data.train.format": "Text"}),
    "benchmark without prompts": (EDGE, {"spec.benchmark.data.format": "Text"}),
    "secret outside of the namespace": (FINETUNE, {"spec.output.credentials": {"secret": "../other/login"}}),
    "output with a tag": (DISTILLATION, {"spec.output.repository": "registry.example/slm/student:v1"}),
    "output in capitals": (DISTILLATION, {"spec.output.repository": "registry.example/SLM/Student"}),
    "image by tag": (FINETUNE, {"spec.run.image": "registry.example/trainer:v1"}),
    "image with a short digest": (FINETUNE, {"spec.run.image": "registry.example/trainer@sha256:0123abcd"}),
    "image with a new line": (FINETUNE, {"spec.run.image": f"registry.example/trainer@{DIGEST}\n"}),
    "image with a password": (FINETUNE, {"spec.run.image": f"me:secret@registry.example/trainer@{DIGEST}"}),
    "image with a letter that only looks right": (FINETUNE, {"spec.run.image": f"r\u0435gistry.example/t@{DIGEST}"}),
    "image that looks like an option": (EDGE, {"spec.runtime.image": f"--privileged/t@{DIGEST}"}),
    # Names and lists.
    "name of 41 characters": (FINETUNE, {"metadata.name": "a" * 41}),
    "name that begins with a digit": (EDGE, {"metadata.name": "2farms"}),
    "share as a percentage": (FINETUNE, {"spec.data.validationSplit": "20%", "spec.data.validation": None}),
    "name with a dot": (EDGE, {"metadata.name": "farms.v2"}),
    "reference into another namespace": (EDGE, {"spec.model.quantizedModel.name": "other/farm-irrigation"}),
    "variant in capitals": (QUANTIZED, {"spec.variants.0.name": "CPU-INT4"}),
    "queue in capitals": (FINETUNE, {"spec.run.queue": "Team-A"}),
    "layer with a blank": (FINETUNE, {"spec.lora.targetModules": ["q proj"]}),
    "no variants": (QUANTIZED, {"spec.variants": []}),
    "two variants of one name": (QUANTIZED, {"spec.variants.1.name": "cpu-int4"}),
    "pool without selector": (EDGE, {"spec.pools.0.selector": {"matchLabels": {}}}),
    "two pools of one name": (EDGE, {"spec.pools": [{"name": "a", **POOL}] * 2}),
    "too many gates": (FINETUNE, {"spec.gates": [GATE] * 17}),
    "too many pools": (EDGE, {"spec.pools": [{"name": f"p{i}", **POOL} for i in range(65)]}),
    "too many resources": (FINETUNE, {"spec.run.resources": {"limits": {f"example.com/r{i}": 1 for i in range(17)}}}),
    "too long an address": (FINETUNE, {"spec.data.train.uri": f"https://example.com/{'a' * 512}"}),
}

CHANGES: dict[str, tuple[tuple[str, str], dict[str, Any], dict[str, Any]]] = {
    "another method": (FINETUNE, {"spec.base": {"distillation": {"name": "nobody"}}},
                       {"spec.method": "Full", "spec.lora": None}),
    "another kind of student": (
        DISTILLATION,
        {"spec.teacher": {"model": {"fineTune": {"name": "nobody"}}}},
        {"spec.student": {"model": {"uri": "oci://registry.example/slm/student:v1"}}},
    ),
}  # fmt: skip
"""What may not change: first the changes to an example that is accepted (it waits for nobody), then those refused."""


def changed(manifest: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the changes made."""
    for path, value in changes.items():
        *way, last = path.split(".")
        part: Any = manifest
        for key in way:
            part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
        if value is None:
            del part[last]
        elif isinstance(part, list):
            part[int(last)] = value
        else:
            part[last] = value
    return manifest
