"""What a person says about a scan: soft mattes, edits, brushes."""
