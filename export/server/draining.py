"""Uvicorn's server, which ends without a reset for those that keep connections."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

__all__ = ["DrainingServer"]

_LOOK_S = 0.05


class DrainingServer(uvicorn.Server):
    """A server that drains before it ends.

    When it is told to end, it goes on for a moment, in which each answer says that it is the last of its connection, so
    that its client opens the next one elsewhere.  Then it takes no connections, and closes those that ask nothing.
    """

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        """Serves nothing yet.

        Args:
            config: of Uvicorn.
            drain_s: how long the moment is, in seconds, at most: it is over when no connection is open.
        """
        super().__init__(config)
        self._drain_s = drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends, once requests under way are answered."""
        state = self.server_state
        state.default_headers = [*state.default_headers, CLOSE_HEADER]
        everyone: set[Any] = set(state.connections)
        for connection in everyone:
            connection.drain()
        end = asyncio.get_running_loop().time() + self._drain_s
        while state.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_S)
        await super().shutdown(sockets)
