module devstack.dev/scripts/draw-gif

go 1.24
