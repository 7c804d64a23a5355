"""Messages read without a consumer: by sequence, by subject, many at once."""
