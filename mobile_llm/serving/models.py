"""GET /v1/models and /v1/models/ID: the one model there is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from mobile_llm.serving.server import Server


async def models(request: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [_card(request.app.state.server)]})


async def model(request: Request) -> JSONResponse:
    server: Server = request.app.state.server
    server.check_model(request.path_params["model"])
    return JSONResponse(_card(server))


def _card(server: Server) -> dict[str, object]:
    return {"id": server.id, "object": "model", "created": server.created, "owned_by": "mobile-llm"}
