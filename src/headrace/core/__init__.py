"""The contracts that everybody shares: messages, deliveries, brokers, errors, time. No I/O, no engine."""
