//go:build tools

// Package tools pins what the recipe builds.
package tools

import (
	_ "github.com/traefik/traefik/v3/cmd/traefik"
)
