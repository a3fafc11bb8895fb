"""The web page; needs the extra `demo`."""
