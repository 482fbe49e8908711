"""Page of the routes of a server, made of its OpenAPI description; it loads nothing from other hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from stedfm_hf.acquisition.serving.description import ANSWERS, MEANINGS, form_fields

_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 50em; padding: 0 1em; }
code { overflow-wrap: anywhere; }
h2 { font-size: 1.2em; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #ccc; padding: .3em .6em .3em 0; text-align: left; vertical-align: top; }
td:first-child { min-width: 6em; }
</style>
<h1>{{ title }}</h1>
<p>{{ about | text }} The description for programs is <a href="openapi.json">openapi.json</a>.</p>
{% for route in routes %}
<h2><code>{{ route.name }}</code></h2>
<p>{{ route.about | text }}{% if route.token %} Needs the token of a client.{% endif %}</p>
{% if route.fields %}
<table>
<tr><th>parameter</th><th>in</th><th>meaning</th></tr>
{% for name, where, meaning in route.fields %}
<tr><td>{% if name %}<code>{{ name }}</code>{% endif %}</td><td>{{ where }}</td><td>{{ meaning | text }}</td></tr>
{% endfor %}
</table>
{% endif %}
<p>Answer: {% if route.answer in answers %}{{ route.list }}<a href="#{{ route.answer }}">{{ route.answer }}</a>
{%- else %}{{ route.answer }}{% endif %}. Errors: {{ route.errors | join(", ") }}.</p>
{% endfor %}
{% for name, fields in answers.items() %}
<h2 id="{{ name }}"><code>{{ name }}</code></h2>
<table>
<tr><th>field</th><th>meaning</th></tr>
{% for field, meaning in fields.items() %}
<tr><td><code>{{ field }}</code></td><td>{{ meaning | text }}</td></tr>
{% endfor %}
</table>
{% endfor %}
<h2>Errors</h2>
<p>Every error is <code>{"error": "one sentence"}</code>.</p>
<table>
<tr><th>status</th><th>meaning</th></tr>
{% for status, meaning in meanings.items() %}
<tr><td>{{ status }}</td><td>{{ meaning | text }}</td></tr>
{% endfor %}
</table>
"""


def routes_page(openapi: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        openapi: OpenAPI description of the server.
    """
    info, schemas = openapi["info"], openapi["components"]["schemas"]
    environment = jinja2.Environment(autoescape=True)
    environment.filters["text"] = _text
    answers = {
        kind.__name__: {name: each["description"] for name, each in schemas[kind.__name__]["properties"].items()}
        for kind in ANSWERS[:-1]
    }
    return environment.from_string(_TEMPLATE).render(
        title=info["title"],
        about=info.get("description", ""),
        routes=[
            _route(openapi, f"{method.upper()} {path}", route)
            for path, methods in openapi["paths"].items()
            for method, route in methods.items()
        ],
        answers=answers,
        meanings=MEANINGS,
    )


def _route(openapi: Mapping[str, Any], name: str, route: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a route."""
    fields = [(each["name"], each["in"], each.get("description", "")) for each in route.get("parameters", ())]
    form = form_fields(openapi, route)
    fields += [(field, "form", schema.get("description", "")) for field, schema in form.items()]
    if (text := route.get("requestBody", {}).get("description")) is not None:
        fields.append(("", "body", text))
    statuses = {int(each): response for each, response in route["responses"].items()}
    good = json.dumps(next(response for status, response in statuses.items() if status < 400))
    kinds = re.findall(r'"#/components/schemas/(\w+)"', good)
    return {
        "name": name,
        "about": route.get("description", ""),
        "token": bool(route.get("security")),
        "fields": fields,
        "answer": kinds[0] if kinds else "nothing" if "204" in route["responses"] else "JSON",
        "list": "list of " if '"array"' in good else "",
        "errors": sorted(status for status in statuses if status >= 400),
    }


def _text(value: str) -> Markup:
    """Return a text as HTML, with code between backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(value))))
