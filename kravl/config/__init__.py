"""Every setting: composed, checked and turned into objects."""
