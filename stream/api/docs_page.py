"""`/docs`: the API reference as one page without scripts, rendered from the OpenAPI document."""

from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.55 Inter,system-ui,sans-serif;max-width:860px;margin:40px auto;padding:0 20px;
background:#0b111b;color:#e8eef7}h1{font-size:26px}h2{font-size:16px;margin:34px 0 4px}
code,pre{font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}pre{background:#131b29;padding:10px;
border:1px solid #243147;border-radius:8px;overflow-x:auto}p,td{color:#c3cede}a{color:#5aa9e6}
.method{color:#ffa94d;margin-right:8px}table{border-collapse:collapse;margin:6px 0}
td{padding:2px 18px 2px 0;vertical-align:top}
"""


def reference_page(openapi: dict[str, Any]) -> str:
    """Render the reference as HTML.

    >>> page = reference_page({"info": {"title": "A", "version": "1"}, "paths": {
    ...     "/x": {"get": {"description": "Get <x>."}}}})
    >>> "<code>/x</code>" in page and "Get &lt;x&gt;." in page
    True
    """
    info = openapi["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        "<p><a href=/openapi.json>OpenAPI document</a></p>",
    ]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method, path, operation))
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(parameter['in'])}"
        f"<td>{escape(_type(parameter.get('schema', {})))}"
        f"<td>{escape(parameter.get('description', ''))}"
        for parameter in operation.get("parameters", [])
    )
    body = " -d @body.json -H 'Content-Type: application/json'" if method == "post" else ""
    call = f"curl -H 'Authorization: Bearer KEY'{body} 'http://HOST:PORT{path}'"
    return (
        f"<h2><span class=method>{method.upper()}</span><code>{escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description', ''))}</p>"
        f"<table>{rows}</table><pre>{escape(call)}</pre>"
    )


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    variants = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    if variants != [schema]:
        return _type(variants[0]) if variants else ""
    return str(schema.get("type", ""))
