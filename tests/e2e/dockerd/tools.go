//go:build tools

// Package engine names what is built from this module: the Docker engine with which the end-to-end tests look at the
// containerd image store. The requirements are those of the engine's own vendor.mod.
package engine

import (
	_ "github.com/docker/docker/cmd/docker-proxy"
	_ "github.com/docker/docker/cmd/dockerd"
)
