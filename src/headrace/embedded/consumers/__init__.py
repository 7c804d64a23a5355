"""What stands in consumers.db: positions, leases, outcomes."""
