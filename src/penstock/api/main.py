"""The app: layers, routes and refusals put together."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import penstock
from penstock.api.auth import OPEN_PATHS, AuthMiddleware
from penstock.api.body import BodyLimitMiddleware, EarlyReplyMiddleware
from penstock.api.context import ContextMiddleware
from penstock.api.problems import Problem, http_problem, penstock_problem, validation_problem
from penstock.api.rates import RateLimiter, RateLimitMiddleware
from penstock.api.routers import (
    batches,
    collections,
    documents,
    health,
    jobs,
    legacy,
    models,
    moves,
    questions,
    queues,
    search,
    workers,
)
from penstock.api.schemas import BatchUpload, DocumentsUpload, QuestionBody, SearchBody
from penstock.api.state import ApiState, make_state
from penstock.app import Services
from penstock.errors import PenstockError

ROUTERS = (collections, moves, documents, batches, search, questions, jobs, queues, workers, models, health, legacy)

DESCRIPTION = """
Ask questions about documents and images, with citations. Uploads and questions are jobs: a 202 means that it is on disk
and will reach exactly one final state.

Refusals are `application/problem+json` (RFC 9457) with a stable `code`. A 429 or 503 carries `Retry-After`.
"""


def create_app(services: Services) -> FastAPI:
    """The HTTP door over services that are open, and stay open as long as it is used."""
    state = make_state(services)
    app = FastAPI(
        title="Penstock",
        version=penstock.__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        root_path=services.settings.api.root_path,
        middleware=_layers(state),
        exception_handlers={
            PenstockError: penstock_problem,
            RequestValidationError: validation_problem,
            HTTPException: http_problem,
        },
    )
    app.state.penstock = state
    for module in ROUTERS:
        app.include_router(module.router)
    _document(app)
    _build_routes(app)
    return app


def _layers(state: ApiState) -> list[Middleware]:
    """From the outermost in. Who calls is decided before anything of the body is read."""
    api = state.services.settings.api
    layers = [Middleware(ContextMiddleware, metrics=state.metrics), Middleware(EarlyReplyMiddleware)]
    if api.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[origin for origin in api.cors_origins if origin != "*"],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "x-api-key", "content-type", "idempotency-key", "last-event-id"],
            expose_headers=["location", "retry-after", "x-request-id"],
        )
        layers.append(cors)
    return [
        *layers,
        Middleware(AuthMiddleware, authenticator=state.authenticator),
        *_rate_limit(api.rate_limit_per_minute),
        Middleware(BodyLimitMiddleware, max_bytes=api.max_request_bytes, max_json_bytes=api.max_body_json_bytes),
    ]


def _rate_limit(per_minute: int) -> list[Middleware]:
    return [Middleware(RateLimitMiddleware, limiter=RateLimiter(per_minute))] if per_minute else []


def _build_routes(app: FastAPI) -> None:
    """The framework builds a route when it first compares a path with it: now, not during the first question."""
    for route in app.routes:
        route.matches({"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []})


def _document(app: FastAPI) -> None:
    """Adds to the OpenAPI document what the framework does not see: what is read or written by hand, and the keys."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            _, definitions = models_json_schema(
                [(model, "validation") for model in (BatchUpload, DocumentsUpload, QuestionBody, SearchBody, Problem)],
                ref_template="#/components/schemas/{model}",
            )
            document["components"]["schemas"] |= definitions["$defs"]
            document["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            document["security"] = [{"bearer": []}, {"header": []}]
            for path in OPEN_PATHS:
                document["paths"][path]["get"]["security"] = []
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the framework's documented way
