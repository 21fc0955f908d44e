"""Volume to volume: networks and classical filters."""
