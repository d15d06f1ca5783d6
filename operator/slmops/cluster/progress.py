"""What a running pod says of itself: asked for with little patience, and bounded, for nothing of it is trusted."""

import ipaddress
import json

import aiohttp

from slmops.cluster.objects import Manifest
from slmops.contract import PROGRESS_PORT

TIMEOUT = 1.0
LIMIT = 16 * 1024


def pod_session() -> aiohttp.ClientSession:
    """Pods get a session of their own: it holds no credentials, keeps no cookies and unpacks nothing."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=32, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
    )


async def progress_of(session: aiohttp.ClientSession, pod: Manifest) -> Manifest | None:
    """What a pod says on ``/progress``: a JSON object of bounded size, or None."""
    try:
        address = ipaddress.ip_address(pod.get("status", {}).get("podIP") or "")
        host = f"[{address}]" if address.version == 6 else str(address)
        url = f"http://{host}:{PROGRESS_PORT}/progress"
        async with session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status != 200:
                return None
            content = bytearray()
            async for chunk in answer.content.iter_chunked(LIMIT):
                content += chunk
                if len(content) > LIMIT:
                    return None
        value = json.loads(content, parse_constant=_no_constant)
    except (aiohttp.ClientError, OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
