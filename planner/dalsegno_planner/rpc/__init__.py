"""The services: convert, call, convert back. `rpc.status` alone maps errors to status codes."""
