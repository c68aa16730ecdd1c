// Command s3www-compat serves the objects of one S3 bucket as a website.
//
// It is devstack's own server for places where s3www cannot be had: it takes
// s3www v1.0.0's flags and environment and answers as s3www does. It shares no
// code with it. Not supported: -lets-encrypt.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const version = "compat-1"

// Pods get 30 seconds from SIGTERM to SIGKILL; a download may use most of them.
const shutdownTime = 20 * time.Second

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer) int {
	config, err := parseConfig(args, getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		log.Print(err)
		return 2
	case config.version:
		fmt.Fprintf(stdout, "s3www-compat %s: devstack's server with the flags of s3www v1.0.0; not upstream s3www\n", version)
		return 0
	}
	bucket, err := openBucket(config)
	if err != nil {
		log.Print(err)
		return 2
	}
	if err := serve(ctx, config, withCORS(config.corsOrigins, readOnly(http.FileServer(bucket)))); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

// serve answers until ctx ends, then lets running requests finish.
func serve(ctx context.Context, config config, handler http.Handler) error {
	listener, err := net.Listen("tcp", config.address)
	if err != nil {
		return err
	}
	scheme := "http"
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	if config.tlsCert != "" {
		scheme = "https"
		certificate, err := tls.LoadX509KeyPair(config.tlsCert, config.tlsKey)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	log.Printf("Started listening on %s://%s (s3www-compat %s, bucket %s at %s)",
		scheme, listener.Addr(), version, config.bucket, config.endpoint)

	ended := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			ended <- server.ServeTLS(listener, "", "")
		} else {
			ended <- server.Serve(listener)
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	log.Print("Stopping")
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return server.Shutdown(limit)
}

// readOnly refuses what would change something; http.FileServer does not look
// at the method.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}
