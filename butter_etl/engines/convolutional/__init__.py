"""Train networks of convolutions, pooling and dropout on images: what they are, a readable engine and a fast one."""
