"""The kinds of layers that an adapter can go on."""
