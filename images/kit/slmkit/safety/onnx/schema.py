"""ONNX's messages, as ``onnx.proto`` of ONNX 1.23 has them. A field that is not here is refused: whoever reads it would
read something that nobody has looked at.
"""

import re

from slmkit.safety.onnx.wire import DATA, DATA4, DATA8, NUMBER, RAW, TEXT, Field

KINDS = {"n": NUMBER, "f": DATA4, "d": DATA8, "v": DATA, "t": TEXT, "r": RAW}
FIELD = re.compile(r"(\d+)(\*?) (\w+) (\w+)")
WRITTEN = {
    "Model": "1 n ir_version, 8* Opset opset, 2 t producer, 3 t producer_version, 4 t domain, 5 n version, 6 t doc, "
             " 7 Graph graph, 14* Pair metadata, 20* Training training, 25* Function function, 26* Device device",
    "Opset": "1 t domain, 2 n version",
    "Pair": "1 t key, 2 t value",
    "Device": "1 t name, 2 n devices, 3* t device",
    "Training": "1 Graph graph, 2 Graph algorithm, 3* Pair first, 4* Pair update",
    "Graph": "1* Node node, 2 t name, 5* Tensor initializer, 15* Sparse sparse, 10 t doc, 11* Value given, "
             "12* Value value, 13* Value value, 14* Annotation annotation, 16* Pair metadata",
    "Annotation": "1 t name, 2* Pair parameter",
    "Node": "1* t input, 2* t output, 3 t name, 4 t op, 7 t domain, 8 t overload, 5* Attribute attribute, 6 t doc, "
            "9* Pair metadata, 10* Place place",
    "Place": "1 t id, 2* Sharding sharding, 3 n stage",
    "Sharding": "1 t tensor, 2* n device, 3* Group group, 4* Dimension dimension",
    "Group": "1 n key, 2* n value",
    "Dimension": "1 n axis, 2* Simple simple",
    "Simple": "1 n value, 2 t parameter, 3 n shards",
    "Attribute": "1 t name, 21 t reference, 13 t doc, 20 n type, 2 f float, 3 n int, 4 t string, 5 Tensor tensor, "
                 "6 Graph graph, 22 Sparse sparse, 14 Type type_proto, 7* f floats, 8* n ints, 9* t strings, "
                 "10* Tensor tensors, 11* Graph graph, 23* Sparse sparse, 15* Type type_proto",
    "Tensor": "1* n dim, 2 n type, 3 r segment, 4* f float_data, 5* v int32_data, 6* t string_data, 7* v int64_data, "
              "8 t name, 12 t doc, 9 r raw, 13* Pair external, 14 n location, 10* d double_data, 11* v uint64_data, "
              "16* Pair metadata",
    "Sparse": "1 Tensor part, 2 Tensor part, 3* n dim",
    "Value": "1 t name, 2 Type type_proto, 3 t doc, 4* Pair metadata",
    "Type": "1 Dense dense, 4 Sequence inner, 5 Map inner, 6 t denotation, 7 Opaque opaque, 8 Dense dense, "
            "9 Sequence inner",
    "Dense": "1 n type, 2 Shape shape",
    "Shape": "1* Extent extent",
    "Extent": "1 n value, 2 t parameter, 3 t denotation",
    "Sequence": "1 Type type_proto",
    "Map": "1 n key, 2 Type type_proto",
    "Opaque": "1 t domain, 2 t name",
    "Function": "1 t name, 4* t input, 5* t output, 6* t attribute_name, 11* Attribute attribute, 7* Node node, 8 t doc, "
                "9* Opset opset, 10 t domain, 13 t overload, 12* Value value, 14* Pair metadata",
}  # fmt: skip
"""By message: number, * for many, kind (a letter of KINDS, or a message), and the name that it has here."""
ONNX = {
    message: {
        int(number): Field(name, KINDS.get(kind, kind), bool(many))
        for number, many, kind, name in FIELD.findall(fields)
    }
    for message, fields in WRITTEN.items()
}
