"""The HTTP API in a thread of the test, and a plain client."""

import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
import uvicorn

from stream.api.gate.connections import server_config
from stream.api.server import create_app
from stream.processes.ports import free_port
from stream.settings import ApiSettings

KEY = "a-key-for-tests"


class ApiClient:
    """A client of an API at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self, path: str, body: Any = None, key: str | None = KEY, **headers: str) -> Any:
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        if data:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        return urllib.request.urlopen(request, timeout=10)

    def get(self, path: str, body: Any = None, key: str | None = KEY, **headers: str) -> Any:
        with self.open(path, body, key, **headers) as answer:
            return json.loads(answer.read())

    def problem(self, path: str, body: Any = None, key: str | None = KEY, **headers: str) -> Any:
        """Return the problem details of a request that must fail."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.get(path, body, key, **headers)
        with caught.value as error:
            assert error.headers["Content-Type"] == "application/problem+json"
            problem = json.loads(error.read())
            assert problem["status"] == error.code
        assert set(problem) == {"type", "title", "status", "detail", "instance"}
        return problem


class Api(ApiClient):
    """An API server in a thread, and its client."""

    def __init__(self, redis: Any, settings: ApiSettings) -> None:
        super().__init__(f"http://127.0.0.1:{free_port()}")
        self.app = create_app(redis, settings)
        port = int(self.url.rpartition(":")[2])
        config = server_config(self.app, host="127.0.0.1", port=port)
        config.timeout_graceful_shutdown = 1
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> "Api":
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)

    def expire_reader(self) -> None:
        """Let the next request read the store again, however soon it comes."""
        self.app.state.reader._refreshed_s = float("-inf")
