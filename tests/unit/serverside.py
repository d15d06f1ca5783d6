"""What server-side apply makes of an object, as far as the tests need it.

A field that a manager set before and does not set any more goes away; fields of others stay. Lists are replaced as a
whole, but for conditions, which are a map by type.
"""

import copy
from typing import Any

Object = dict[str, Any]


def applied(live: Object, wanted: Object, before: Object) -> Object:
    """``live`` after a manager applied ``wanted``, who had applied ``before``."""
    result = copy.deepcopy(live)
    _drop(result, before, wanted)
    return merged(result, copy.deepcopy(wanted))


def merged(target: Any, patch: Any) -> Any:
    """A merge patch: null removes. Changes ``target``."""
    if not isinstance(patch, dict) or not isinstance(target, dict):
        return patch
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif key == "conditions" and isinstance(target.get(key), list):
            rest = [item for item in target[key] if item["type"] not in {new["type"] for new in value}]
            target[key] = rest + value
        else:
            target[key] = merged(target.get(key), value)
    return target


def _drop(target: Object, before: Object, wanted: Object) -> None:
    for key, value in before.items():
        old, new = target.get(key), wanted.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _drop(old, value, new if isinstance(new, dict) else {})
            if not old and key not in wanted:
                del target[key]
        elif key == "conditions" and isinstance(old, list):
            gone = {item["type"] for item in value} - {item["type"] for item in new or ()}
            target[key] = [item for item in old if item["type"] not in gone]
            if not target[key]:
                del target[key]
        elif key not in wanted:
            target.pop(key, None)
