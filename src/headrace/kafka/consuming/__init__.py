"""Reading from Kafka: the driver's thread, the stays of partitions with us, what is handed out, what committed."""
