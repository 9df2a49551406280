"""Independent judges: plain formulas under torch autograd, a priori error bounds, and a pure-Python Philox."""
