"""The project on disk: SQLite, voxel files, journal."""
