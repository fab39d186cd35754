"""The form in which records and payloads travel and rest. Knows payload types, never methods."""
