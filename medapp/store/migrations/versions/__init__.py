"""One step of the schema, one file."""
