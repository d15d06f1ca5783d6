"""Questions to pods of ours: without credentials, bounded in size and time. What they answer is untrusted."""

import ipaddress
import json

import aiohttp

from slmops.cluster.objects import Manifest

TIMEOUT = 1.0


def session() -> aiohttp.ClientSession:
    """Of its own: it holds no credentials, keeps no cookies and unpacks nothing."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=32, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
    )


async def ask(pods: aiohttp.ClientSession, pod: Manifest, port: int, path: str, limit: int) -> Manifest | None:
    """What a pod says there: a JSON object of so many bytes at most, or None."""
    try:
        address = ipaddress.ip_address(pod.get("status", {}).get("podIP") or "")
        host = f"[{address}]" if address.version == 6 else str(address)
        url = f"http://{host}:{port}{path}"
        async with pods.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status != 200:
                return None
            content = bytearray()
            async for chunk in answer.content.iter_chunked(limit):
                content += chunk
                if len(content) > limit:
                    return None
        value = json.loads(content, parse_constant=_no_constant)
    except (aiohttp.ClientError, OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
