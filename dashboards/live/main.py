"""Bokeh application script: runs once per session; all sessions share one feed."""

from bokeh.io import curdoc

from dashboards.document import build
from dashboards.shared_feed import shared_feed

build(curdoc(), shared_feed())
