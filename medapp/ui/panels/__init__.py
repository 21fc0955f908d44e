"""Side panels, status and tasks."""
