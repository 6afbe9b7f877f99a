"""The file server: the contents of one machine over HTTP, for the nodes of an application."""
