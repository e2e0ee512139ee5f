"""Routes of the HTTP API under `/v1`; `stream.feed.http` puts them together."""
