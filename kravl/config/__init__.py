"""Every knob: composed, checked and made into objects."""
