//go:build tools

// Package tools names the commands that this recipe builds, so that go mod tidy keeps them.
package tools

import _ "github.com/rancher/local-path-provisioner"
