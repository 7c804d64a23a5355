"""What stands in streams.db: the streams, their limits, reading and removing."""
