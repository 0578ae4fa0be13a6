"""Diverse image colorization: the library of the book.

One module for one idea; a module imports only those above it in this list:
errors, runtime, parallel, lab, bins, portraits, download, data, losses, autoencoder, cvae, features, mdn, train, cost, colorize,
metrics, ablation, plots, checks.
"""

__version__ = "0.1.0"
