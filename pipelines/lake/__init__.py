"""Tables: their shape, their place, how they are published, what must hold between them."""
