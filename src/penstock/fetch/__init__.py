"""Files from URLs that strangers name, without lending them our place in the network."""

from penstock.fetch.fetcher import Accept, Download, Fetched, Fetcher
from penstock.fetch.options import FetchOptions

__all__ = ["Accept", "Download", "FetchOptions", "Fetched", "Fetcher"]
