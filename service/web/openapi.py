"""The OpenAPI document: what the framework says of the routes, with bodies, problems and scopes added; and its page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from inspect import cleandoc
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from service.web.access import OPEN
from service.web.problems import MEDIA_TYPE, Problem

Document = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"


def document_of(generated: Document, routes: Sequence[HTTPRouteHandler]) -> Document:
    """The finished document of the routes."""
    bodies = [_described(route.opt["body"]) for route in routes if "body" in route.opt]
    _, components = msgspec.json.schema_components([*bodies, Problem], ref_template=REFERENCE)
    schemas = generated.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(components)
    described = _described_answers(routes)
    for name, schema in schemas.items():
        schema["description"] = cleandoc(schema.get("description") or described.get(_PAGE.sub(r"Page_\1_", name), ""))
    generated["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    generated["components"]["responses"] = {
        "Problem": {"description": "A problem document (RFC 9457).", "content": {MEDIA_TYPE: {"schema": _ref(Problem)}}}
    }
    for route in routes:
        for path in route.paths:
            for method in route.http_methods:
                _complete(generated["paths"][_template(path)][method.lower()], route)
    # By way of JSON, so that it is plain lists and dictionaries, whatever made it.
    text = json.dumps(generated, default=str, sort_keys=True, ensure_ascii=False)
    plain: Document = json.loads(_PAGE.sub(r"\1Page", text))
    return plain


def _described_answers(routes: Sequence[HTTPRouteHandler]) -> dict[str, str]:
    """What the shapes of answers say of themselves, by their names: the framework leaves it out."""
    answers = [kind.annotation for route in routes for kind in route.parsed_fn_signature.return_type.inner_types]
    _, components = msgspec.json.schema_components(answers, ref_template=REFERENCE)
    return {name: schema["description"] for name, schema in components.items() if "description" in schema}


def serve_document(document: Document, page: str) -> list[HTTPRouteHandler]:
    """The routes that show the document, for machines and for people."""
    encoded, html = msgspec.json.encode(document), page.encode()

    @get("/schema/openapi.json", opt=OPEN, include_in_schema=False)
    async def openapi_json() -> Response[bytes]:
        return Response(encoded, media_type="application/json")

    @get("/schema", opt=OPEN, include_in_schema=False)
    async def openapi_page() -> Response[bytes]:
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(html, media_type="text/html", headers=headers)

    return [openapi_json, openapi_page]


def page_of(document: Document) -> str:
    """The document as one page of HTML that needs nothing else."""
    parts = [f"<h1>{escape(document['info']['title'])}</h1><p>{escape(document['info']['description'])}"]
    parts.append('<p><a href="/schema/openapi.json">openapi.json</a>')
    for path, item in document["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in item.items()]
    parts.append("<h2>Shapes</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(f"<h3 id='{escape(name)}'>{escape(name)}</h3><p>{escape(schema.get('description', ''))}")
        parts.append(f"<pre>{escape(json.dumps(schema.get('properties', schema), indent=1, ensure_ascii=False))}</pre>")
    return f"<!doctype html><meta charset=utf-8><title>Farebox API</title><style>{_STYLE}</style>{''.join(parts)}"


def _complete(operation: Document, route: HTTPRouteHandler) -> None:
    """Adds what the framework can't know: the body, the scope, the problems."""
    operation["responses"].pop("400", None)
    operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    operation["operationId"] = route.fn.__name__
    operation.pop("summary", None)
    if "body" in route.opt:
        content = {"application/json": {"schema": _ref(route.opt["body"])}}
        operation["requestBody"] = {"required": True, "content": content}
    if "raw_body" in route.opt:
        operation["requestBody"] = {"required": True, "description": route.opt["raw_body"], "content": {"*/*": {}}}
        words = {"text/plain": {"schema": {"type": "string"}}, "application/json": {}}
        operation["responses"]["200"]["content"] = words
        problem = {"application/problem+json": {"schema": REFERENCE_TO_PROBLEM}}
        refused = "A problem, or a refusal in the words that the sender looks for."
        operation["responses"]["default"] = {"description": refused, "content": {**problem, **words}}
    if "text" in route.opt:
        operation["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    scope = route.opt["scope"]
    if scope is not None:
        operation["security"] = [{"token": [scope]}]
        also = ", a rider's token too" if route.opt["riders"] else ""
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds the scope `{scope}`{also}.".strip()


def _operation(path: str, method: str, operation: Document) -> str:
    rows = "".join(
        f"<tr><td>{escape(item['name'])}<td>{escape(item['in'])}<td>{escape(item.get('description') or '')}"
        for item in operation.get("parameters", [])
    )
    table = f"<table>{rows}</table>" if rows else ""
    said = f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('description', ''))}{table}"
    if "requestBody" in operation:
        said += f"<p>Body: {_shapes(operation['requestBody'])}"
    for status, response in operation["responses"].items():
        said += f"<p>{'Otherwise' if status == 'default' else status}: {_shapes(response)}"
    return said


def _shapes(content: Document) -> str:
    """The shapes of a body or an answer, each a link to where it is told on the page."""
    if "$ref" in content:
        return '<a href="#Problem">Problem</a>'
    names = [_REFERRED.findall(json.dumps(kind)) for kind in content.get("content", {}).values()]
    links = [f"<a href='#{escape(name)}'>{escape(name)}</a>" for told in names for name in told]
    return " of ".join(links) or escape(content.get("description", ""))


def _template(path: str) -> str:
    """A route's path as OpenAPI writes it: `/v1/holds/{session_id}`."""
    return "/".join(f"{{{part[1:-1].partition(':')[0]}}}" if part.startswith("{") else part for part in path.split("/"))


def _described(shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The shape with the JSON that it keeps raw told as an object."""
    told = msgspec.structs.fields(shape)
    if all(field.type is not msgspec.Raw for field in told):
        return shape
    fields: list[Any] = []
    for field in told:
        if field.type is msgspec.Raw:
            fields.append((field.name, dict[str, Any]) if field.required else (field.name, dict[str, Any], {}))
        else:
            fields.append((field.name, field.type) if field.required else (field.name, field.type, _default(field)))
    twin = msgspec.defstruct(shape.__name__, fields, forbid_unknown_fields=True)
    twin.__doc__ = shape.__doc__
    return twin


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _ref(shape: type) -> Document:
    return {"$ref": REFERENCE.format(name=shape.__name__)}


REFERENCE_TO_PROBLEM = {"$ref": REFERENCE.format(name="Problem")}
_REFERRED = re.compile(r"#/components/schemas/([^\"]+)")
_PAGE = re.compile(r"Page_[\w.]+\.(\w+?)_(?=\"|$)")
"""How the framework names a page of something."""
_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "h2{font-size:1.1em;border-top:1px solid #ccc;padding-top:.6em}pre{background:#f6f6f6;padding:.6em;overflow:auto}"
    "td{padding:0 1em 0 0;vertical-align:top}"
)
