"""Models trained, compared, published and handed over."""
