"""What was measured: files in, scans out."""
