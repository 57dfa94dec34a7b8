"""Questions asked of the methods: each a plan of cells that are measured one by one, and a verdict by a stated rule."""
