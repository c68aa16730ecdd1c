module devstack.dev/recipes/pause

go 1.21
