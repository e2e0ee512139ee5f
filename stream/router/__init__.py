"""The router role: documents and lines under any key, re-keyed into `orders`."""
