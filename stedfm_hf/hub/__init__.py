"""Publish models, data sets and the app on the Hub, export models, and serve them."""
