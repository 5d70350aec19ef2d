"""The page and the list of operations: two self-contained documents under a strict content policy."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse


def page_routes(router: APIRouter) -> None:
    """`/` and `/docs`; neither loads anything from another host."""
    page = (files("reason_engine.serving") / "web" / "index.html").read_text("utf-8")
    headers = {"content-security-policy": _policy(page), "referrer-policy": "no-referrer"}

    @router.get("/", response_model=None, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    @router.get("/docs", response_model=None, include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        text = _docs(request.app.openapi())
        return HTMLResponse(text, headers={"content-security-policy": _policy(text)})


def _policy(text: str) -> str:
    """Only the inline script and style of this very document run."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in found]
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _docs(schema: dict[str, Any]) -> str:
    parts = [f"<h1>{html.escape(schema['info']['title'])}</h1>", f"<p>{html.escape(schema['info']['description'])}</p>"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            parts.append(
                f"<h2><code>{html.escape(method.upper())} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(operation.get('description') or operation.get('summary', ''))}</p>"
            )
            rows = [_row(name, field) for name, field in body.get("properties", {}).items()]
            if rows:
                parts.append(f"<table><tr><th>field</th><th>type</th><th></th></tr>{''.join(rows)}</table>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "h2{font-size:1rem;margin-top:2rem}td,th{text-align:left;padding:.1rem 1rem .1rem 0;vertical-align:top}"
        "@media(prefers-color-scheme:dark){body{background:#16181d;color:#e4e6eb}}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>API</title><style>{style}</style>'
        f"<body>{''.join(parts)}<p>The full schema is at <code>/openapi.json</code>.</p></body></html>"
    )


def _row(name: str, field: dict[str, Any]) -> str:
    kinds = [field, *field.get("anyOf", [])]
    kind = " or ".join(dict.fromkeys(str(k["type"]) for k in kinds if k.get("type") not in (None, "null")))
    bounds = [f"{key} {k[key]}" for k in kinds for key in ("minimum", "exclusiveMinimum", "maximum") if key in k]
    text = "; ".join(part for part in (field.get("description", ""), ", ".join(bounds)) if part)
    return f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(kind)}</td><td>{html.escape(text)}</td></tr>"
