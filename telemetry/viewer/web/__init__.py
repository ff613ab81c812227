"""The viewer over HTTP: the page, its API and its events."""
