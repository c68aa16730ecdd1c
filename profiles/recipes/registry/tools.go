//go:build tools

// Package tools pins what the recipe builds.
package tools

import (
	_ "github.com/distribution/distribution/v3/cmd/registry"
)
