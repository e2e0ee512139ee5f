"""Entry of `bokeh serve dashboards/live`; one run a session, all of them on one feed."""

from bokeh.io import curdoc

from dashboards.document import build
from dashboards.shared_feed import shared_feed

build(curdoc(), shared_feed())
