"""The messages and services of the wire protocol, generated from `protos/dalsegno/v1` by `make protos`."""
