//go:build tools

// Package tools names the commands that this recipe builds, so that go mod tidy keeps them.
package tools

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
