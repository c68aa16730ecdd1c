package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeS3 is the part of S3 that the server uses, over keys in memory.
type fakeS3 struct {
	objects  map[string]string
	deny     bool // every request
	denyList bool
	requests []string
}

var modified = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	key, isObject := strings.CutPrefix(r.URL.Path, "/site/")
	isObject = isObject && key != ""
	if !query.Has("location") {
		f.requests = append(f.requests, r.Method+" "+key+query.Get("prefix"))
	}
	switch {
	case f.deny || f.denyList && !isObject && !query.Has("location"):
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<Error><Code>AccessDenied</Code></Error>`)
	case query.Has("location"):
		io.WriteString(w, `<LocationConstraint></LocationConstraint>`)
	case !isObject:
		f.list(w, query.Get("prefix"), query.Get("delimiter"))
	default:
		body, ok := f.objects[key]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `<Error><Code>NoSuchKey</Code></Error>`)
			return
		}
		sum := md5.Sum([]byte(body))
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", modified, strings.NewReader(body))
	}
}

func (f *fakeS3) list(w http.ResponseWriter, prefix, delimiter string) {
	type content struct {
		Key          string
		Size         int
		LastModified time.Time
	}
	var result struct {
		XMLName        xml.Name `xml:"ListBucketResult"`
		Contents       []content
		CommonPrefixes []struct{ Prefix string }
	}
	for key, body := range f.objects {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if name, _, deeper := strings.Cut(rest, delimiter); deeper && delimiter != "" {
			entry := struct{ Prefix string }{prefix + name + "/"}
			if !slices.Contains(result.CommonPrefixes, entry) {
				result.CommonPrefixes = append(result.CommonPrefixes, entry)
			}
			continue
		}
		result.Contents = append(result.Contents, content{key, len(body), modified})
	}
	xml.NewEncoder(w).Encode(result)
}

func newServer(t *testing.T, s3 *fakeS3, args ...string) *httptest.Server {
	t.Helper()
	log.SetOutput(io.Discard)
	backend := httptest.NewServer(s3)
	t.Cleanup(backend.Close)
	args = append([]string{"-endpoint", backend.URL, "-bucket", "site", "-accessKey", "reader", "-secretKey", "secret-of-reader"}, args...)
	c, err := parseConfig(args, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := openBucket(c)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(withCORS(c.corsOrigins, readOnly(http.FileServer(bucket))))
	t.Cleanup(front.Close)
	return front
}

type answer struct {
	status int
	body   string
	header http.Header
}

func fetch(t *testing.T, method, url string, header ...string) answer {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, string(body), response.Header}
}

func site() *fakeS3 {
	return &fakeS3{objects: map[string]string{
		"index.html": "<h1>home</h1>", "site.gif": "GIF89a-and-more", "empty.txt": "",
		"docs/index.html": "docs", "files/a.txt": "a", "files/b.txt": "bb", "files/deep/c.txt": "c", "noext": "<html>sniffed</html>",
	}}
}

func TestPaths(t *testing.T) {
	server := newServer(t, site())
	for _, test := range []struct {
		path, body, contentType string
		status                  int
	}{
		{"/", "<h1>home</h1>", "text/html; charset=utf-8", 200},
		{"/site.gif", "GIF89a-and-more", "image/gif", 200},
		{"/empty.txt", "", "text/plain; charset=utf-8", 200},
		{"/docs/", "docs", "text/html; charset=utf-8", 200},
		{"/noext", "<html>sniffed</html>", "text/html; charset=utf-8", 200},
		{"/docs", "", "", 301},
		{"/files", "", "", 301},
		{"/index.html", "", "", 301},
		{"/nothing", "404 page not found\n", "text/plain; charset=utf-8", 404},
		{"/nothing/", "404 page not found\n", "text/plain; charset=utf-8", 404},
		{"/../../site.gif", "GIF89a-and-more", "image/gif", 200},
	} {
		got := fetch(t, "GET", server.URL+test.path)
		if got.status != test.status || got.body != test.body && test.status != 301 ||
			test.contentType != "" && got.header.Get("Content-Type") != test.contentType {
			t.Errorf("%s: %d %q %q", test.path, got.status, got.body, got.header.Get("Content-Type"))
		}
	}
}

func TestListing(t *testing.T) {
	server := newServer(t, site())
	got := fetch(t, "GET", server.URL+"/files/")
	for _, want := range []string{`href="a.txt"`, `href="b.txt"`, `href="deep/"`} {
		if !strings.Contains(got.body, want) {
			t.Errorf("no %s in %s", want, got.body)
		}
	}
	empty := newServer(t, &fakeS3{})
	if got := fetch(t, "GET", empty.URL+"/"); got.status != 200 {
		t.Errorf("empty bucket: %d", got.status)
	}
}

func TestEveryS3ErrorIs404(t *testing.T) {
	denied := site()
	denied.deny = true
	gone := newServer(t, denied)
	for _, path := range []string{"/", "/site.gif", "/files/", "/nothing"} {
		if got := fetch(t, "GET", gone.URL+path); got.status != 404 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

func TestReadingNeedsNoPermissionToList(t *testing.T) {
	s3 := site()
	s3.denyList = true
	server := newServer(t, s3)
	for _, path := range []string{"/", "/site.gif", "/docs/"} {
		if got := fetch(t, "GET", server.URL+path); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := fetch(t, "GET", server.URL+"/files/"); got.status != 404 {
		t.Errorf("listing: %d", got.status)
	}
}

func TestRangesAndConditions(t *testing.T) {
	s3 := site()
	server := newServer(t, s3)
	for span, want := range map[string]string{"bytes=0-5": "GIF89a", "bytes=7-9": "and", "bytes=-4": "more", "bytes=11-": "more"} {
		got := fetch(t, "GET", server.URL+"/site.gif", "Range", span)
		if got.status != 206 || got.body != want {
			t.Errorf("%s: %d %q", span, got.status, got.body)
		}
	}
	if got := fetch(t, "GET", server.URL+"/site.gif", "Range", "bytes=99-"); got.status != 416 {
		t.Errorf("beyond the end: %d", got.status)
	}
	s3.requests = nil
	if got := fetch(t, "GET", server.URL+"/site.gif", "If-Modified-Since", modified.Format(http.TimeFormat)); got.status != 304 {
		t.Errorf("not modified: %d", got.status)
	}
	if got := fetch(t, "HEAD", server.URL+"/site.gif"); got.status != 200 || got.header.Get("Content-Length") != "15" {
		t.Errorf("HEAD: %d %v", got.status, got.header)
	}
	if !slices.Equal(s3.requests, []string{"HEAD site.gif", "HEAD site.gif"}) {
		t.Errorf("content was fetched for nothing: %v", s3.requests)
	}
	if got := fetch(t, "DELETE", server.URL+"/site.gif"); got.status != 405 {
		t.Errorf("DELETE: %d", got.status)
	}
}

func TestObjectReplacedWhileServed(t *testing.T) {
	s3 := site()
	server := newServer(t, s3)
	backend := httptest.NewServer(s3)
	defer backend.Close()
	c, _ := parseConfig([]string{"-endpoint", backend.URL, "-bucket", "site", "-accessKey", "a", "-secretKey", "b"}, func(string) string { return "" })
	bucket, err := openBucket(c)
	if err != nil {
		t.Fatal(err)
	}
	file, err := bucket.Open("/site.gif")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s3.objects["site.gif"] = "another-object!"
	if content, err := io.ReadAll(file); err == nil {
		t.Errorf("read %q of the new object under the old one's size", content)
	}
	if got := fetch(t, "GET", server.URL+"/site.gif"); got.body != "another-object!" {
		t.Errorf("new object: %q", got.body)
	}
}

func TestBucketPath(t *testing.T) {
	for _, path := range []string{"/files", "files/", "/files/"} {
		server := newServer(t, site(), "-bucketPath", path)
		if got := fetch(t, "GET", server.URL+"/a.txt"); got.body != "a" {
			t.Errorf("%s: %d %q", path, got.status, got.body)
		}
		if got := fetch(t, "GET", server.URL+"/../site.gif"); got.status != 404 {
			t.Errorf("%s: left the path: %d", path, got.status)
		}
		if got := fetch(t, "GET", server.URL+"/"); !strings.Contains(got.body, `href="b.txt"`) {
			t.Errorf("%s: listing %q", path, got.body)
		}
	}
}

func TestSinglePageApplication(t *testing.T) {
	server := newServer(t, site(), "-spaFile", "/docs/index.html")
	got := fetch(t, "GET", server.URL+"/a/route")
	if got.status != 200 || got.body != "docs" || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %q %v", got.status, got.body, got.header)
	}
	if got := fetch(t, "GET", server.URL+"/site.gif"); got.body != "GIF89a-and-more" {
		t.Errorf("an object that exists: %q", got.body)
	}
}

func TestCORS(t *testing.T) {
	server := newServer(t, site(), "-allowed-cors-origins", "https://app.test, https://*.dev.test")
	for origin, want := range map[string]string{
		"https://app.test": "https://app.test", "https://a.dev.test": "https://a.dev.test",
		"https://evil.test": "", "https://app.test.evil": "",
	} {
		got := fetch(t, "GET", server.URL+"/site.gif", "Origin", origin)
		if got.header.Get("Access-Control-Allow-Origin") != want || got.header.Get("Vary") != "Origin" || got.status != 200 {
			t.Errorf("%s: %d %v", origin, got.status, got.header)
		}
	}
	got := fetch(t, "OPTIONS", server.URL+"/site.gif", "Origin", "https://app.test", "Access-Control-Request-Method", "GET")
	if got.status != 204 || got.header.Get("Access-Control-Allow-Methods") != "GET, HEAD" {
		t.Errorf("preflight: %d %v", got.status, got.header)
	}
}

func TestConfig(t *testing.T) {
	directory := t.TempDir()
	keyFile, emptyFile := filepath.Join(directory, "key"), filepath.Join(directory, "empty")
	os.WriteFile(keyFile, []byte("from-file\n"), 0o600)
	os.WriteFile(emptyFile, nil, 0o600)
	env := map[string]string{
		"S3WWW_ENDPOINT": "http://minio:9000", "S3WWW_BUCKET": "site", "S3WWW_BUCKET_PATH": "/a/b",
		"S3WWW_ACCESS_KEY": "from-env", "S3WWW_SECRET_KEY_FILE": keyFile, "S3WWW_ADDRESS": "0.0.0.0:8080",
	}
	getenv := func(name string) string { return env[name] }
	c, err := parseConfig(nil, getenv)
	if err != nil || c.endpoint.Host != "minio:9000" || c.prefix != "a/b/" || c.accessKey != "from-env" ||
		c.secretKey != "from-file" || c.address != "0.0.0.0:8080" {
		t.Errorf("environment: %+v %v", c, err)
	}
	c, err = parseConfig([]string{"-bucket", "other", "-accessKey", "from-flag", "-address", ":1"}, getenv)
	if err != nil || c.bucket != "other" || c.accessKey != "from-flag" || c.address != ":1" {
		t.Errorf("flags win: %+v %v", c, err)
	}
	if c, _ := parseConfig([]string{"-endpoint", "http://x", "-bucket", "b"}, func(string) string { return "" }); c.address != "127.0.0.1:8080" || c.prefix != "" {
		t.Errorf("defaults: %+v", c)
	}
	for _, args := range [][]string{
		{"-bucket", " "}, {"-endpoint", "minio:9000"}, {"-endpoint", "ftp://x"}, {"-lets-encrypt"},
		{"-ssl-cert", "x"}, {"-secretKeyFile", emptyFile}, {"-accessKeyFile", filepath.Join(directory, "none")}, {"stray"},
	} {
		if _, err := parseConfig(args, getenv); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

func TestHelpShowsNoSecret(t *testing.T) {
	stderr := os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = write
	_, err = parseConfig([]string{"-help"}, func(string) string { return "hunter2" })
	os.Stderr = stderr
	write.Close()
	text, _ := io.ReadAll(read)
	if !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.Contains(line, "KEY)") && strings.Contains(line, "hunter2") && !strings.Contains(line, "SSL") {
			t.Error(line)
		}
	}
}

func TestVersionSaysWhatItIs(t *testing.T) {
	var out bytes.Buffer
	if code := run(context.Background(), []string{"-version"}, func(string) string { return "" }, &out); code != 0 {
		t.Error(code)
	}
	if !strings.Contains(out.String(), "devstack") || !strings.Contains(out.String(), "not upstream") {
		t.Error(out.String())
	}
}
