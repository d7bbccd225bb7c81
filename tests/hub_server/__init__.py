"""A server on this machine's loopback that speaks as much of the Hub's API as the real client asks for."""

from hub_server.server import READ_TOKEN, USER, WRITE_TOKEN, HubServer

__all__ = ["READ_TOKEN", "USER", "WRITE_TOKEN", "HubServer"]
