"""Published weights: files of others read safely, recognised by their shapes, and taken over."""
