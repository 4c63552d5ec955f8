"""The least server that sentence-transformers can be put behind: sentence_server.py FOLDER --port 8112.

One route, /v1/embeddings, one call of `encode` for each request, in FastAPI's threads: what people write themselves.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any, Literal

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class EmbeddingBody(BaseModel):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"


def create_app(folder: Path) -> FastAPI:
    app = FastAPI()
    model = SentenceTransformer(str(folder), device="cpu")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "minilm", "object": "model", "created": 0, "owned_by": "nobody"}]}

    @app.post("/v1/embeddings")
    def embeddings(body: EmbeddingBody) -> dict[str, Any]:
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors = model.encode(texts, batch_size=64)
        data = [
            {"index": index, "object": "embedding", "embedding": written(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return {"object": "list", "model": body.model, "data": data, "usage": usage}

    return app


def written(vector: np.ndarray, encoding_format: str) -> list[float] | str:
    return base64.b64encode(vector.tobytes()).decode() if encoding_format == "base64" else vector.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8112)
    args = parser.parse_args()
    uvicorn.run(create_app(args.folder), host="127.0.0.1", port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
