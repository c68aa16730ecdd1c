package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"
)

type config struct {
	endpoint    *url.URL
	bucket      string
	prefix      string // of every key: empty, or ends in "/"
	accessKey   string
	secretKey   string
	address     string
	tlsCert     string
	tlsKey      string
	spaKey      string
	corsOrigins []string
	version     bool
}

// parseConfig reads flags, whose defaults are the environment's values.
func parseConfig(args []string, getenv func(string) string) (config, error) {
	flags := flag.NewFlagSet("s3www-compat", flag.ContinueOnError)
	text := func(name, variable, value, help string) *string {
		if fromEnv := getenv(variable); fromEnv != "" {
			value = fromEnv
		}
		return flags.String(name, value, help+" ($"+variable+")")
	}
	var (
		endpoint      = text("endpoint", "S3WWW_ENDPOINT", "", "URL of the S3 server; http:// means without TLS")
		bucket        = text("bucket", "S3WWW_BUCKET", "", "name of the bucket to serve")
		bucketPath    = text("bucketPath", "S3WWW_BUCKET_PATH", "/", "path in the bucket to serve from")
		accessKey     = flags.String("accessKey", "", "access key ($S3WWW_ACCESS_KEY)") // not as default: -help prints those
		secretKey     = flags.String("secretKey", "", "secret key ($S3WWW_SECRET_KEY)")
		accessKeyFile = text("accessKeyFile", "S3WWW_ACCESS_KEY_FILE", "", "file that holds the access key")
		secretKeyFile = text("secretKeyFile", "S3WWW_SECRET_KEY_FILE", "", "file that holds the secret key")
		address       = text("address", "S3WWW_ADDRESS", "127.0.0.1:8080", "ADDRESS:PORT to listen on")
		tlsCert       = text("ssl-cert", "S3WWW_SSL_CERT", "", "file with this server's TLS certificate")
		tlsKey        = text("ssl-key", "S3WWW_SSL_KEY", "", "file with this server's TLS key")
		spaFile       = text("spaFile", "S3WWW_SPA_FILE", "", "key of the object to serve where there is none (single-page applications)")
		letsEncrypt   = flags.Bool("lets-encrypt", isTrue(getenv("S3WWW_LETS_ENCRYPT")), "not supported by this server ($S3WWW_LETS_ENCRYPT)")
		corsOrigins   = text("allowed-cors-origins", "S3WWW_ALLOWED_CORS_ORIGINS", "", "origins that may read from browsers, separated by commas")
		version       = flags.Bool("version", false, "print the version")
	)
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	if *version {
		return config{version: true}, nil
	}
	c := config{
		bucket: strings.TrimSpace(*bucket), prefix: keyPrefix(*bucketPath),
		address: *address, tlsCert: *tlsCert, tlsKey: *tlsKey,
		spaKey: strings.TrimPrefix(*spaFile, "/"), corsOrigins: splitList(*corsOrigins),
	}
	var err error
	if c.accessKey, err = fileOr(*accessKeyFile, *accessKey, getenv("S3WWW_ACCESS_KEY")); err != nil {
		return config{}, fmt.Errorf("-accessKeyFile: %w", err)
	}
	if c.secretKey, err = fileOr(*secretKeyFile, *secretKey, getenv("S3WWW_SECRET_KEY")); err != nil {
		return config{}, fmt.Errorf("-secretKeyFile: %w", err)
	}
	c.endpoint, err = url.Parse(*endpoint)
	switch {
	case len(flags.Args()) > 0:
		return config{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.bucket == "":
		return config{}, errors.New("-bucket (or S3WWW_BUCKET) is required")
	case *endpoint == "":
		return config{}, errors.New("-endpoint (or S3WWW_ENDPOINT) is required")
	case err != nil:
		return config{}, fmt.Errorf("-endpoint: %w", err)
	case c.endpoint.Host == "" || c.endpoint.Scheme != "http" && c.endpoint.Scheme != "https":
		return config{}, fmt.Errorf("-endpoint: %q is not an http:// or https:// URL", *endpoint)
	case *letsEncrypt:
		return config{}, errors.New("-lets-encrypt is not supported by s3www-compat: use -ssl-cert and -ssl-key, or an ingress")
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return config{}, errors.New("-ssl-cert and -ssl-key go together")
	case (c.accessKey == "") != (c.secretKey == ""):
		return config{}, errors.New("an access key and a secret key go together")
	}
	return c, nil
}

// fileOr returns the content of the file, or where none is named the first
// value that is not empty.
func fileOr(file string, values ...string) (string, error) {
	if file == "" {
		return cmp.Or(values...), nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(content))
	if key == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return key, nil
}

func keyPrefix(bucketPath string) string {
	clean := strings.TrimPrefix(path.Clean("/"+bucketPath), "/")
	if clean == "" {
		return ""
	}
	return clean + "/"
}

func splitList(text string) []string {
	var list []string
	for _, item := range strings.Split(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

func isTrue(text string) bool {
	switch strings.ToLower(text) {
	case "1", "t", "true", "on", "yes":
		return true
	}
	return false
}
