"""Diverse image colorization: the library of the book.

One module for one idea; a module imports only those above it in this list:
errors, runtime, lab, bins, portraits, data, losses, autoencoder, cvae, features, mdn, train, colorize, metrics, plots, checks.
"""

__version__ = "0.1.0"
