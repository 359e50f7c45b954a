"""What a model says of images without labels: scored in a stream, written a line each."""
