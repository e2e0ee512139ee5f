"""The live view: a Bokeh document fed from the store's read side. It only reads."""
