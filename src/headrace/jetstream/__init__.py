"""Streams on a NATS server: the stream model over the wire client."""
