"""The tests mirror the packages; helpers that several of them share lie beside them."""
