"""The live view: a read-only Bokeh document on top of the read side."""
