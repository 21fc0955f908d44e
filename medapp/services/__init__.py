"""One function per request; here the parts meet."""
