//go:build tools

// Package tools pins what the recipe builds.
package tools

import (
	_ "github.com/minio/mc"
)
