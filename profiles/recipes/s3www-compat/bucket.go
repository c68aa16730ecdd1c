package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// One question to S3, not the transfer of an object.
const questionTime = 10 * time.Second

// bucketFS shows a bucket as a file system. A key's slashes make directories.
type bucketFS struct {
	client minio.Core
	bucket string
	prefix string
	spaKey string
}

func openBucket(c config) (*bucketFS, error) {
	keys := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{},
	})
	if c.accessKey != "" {
		keys = credentials.NewStaticV4(c.accessKey, c.secretKey, "")
	}
	client, err := minio.NewCore(c.endpoint.Host, &minio.Options{
		Creds:      keys,
		Secure:     c.endpoint.Scheme == "https",
		Region:     s3utils.GetRegionFromURL(*c.endpoint),
		MaxRetries: 2, // a visitor waits meanwhile
	})
	if err != nil {
		return nil, fmt.Errorf("-endpoint: %w", err)
	}
	return &bucketFS{client: *client, bucket: c.bucket, prefix: c.prefix, spaKey: c.spaKey}, nil
}

// Open finds the object or directory that a request's path names. Whatever S3
// says against it, a visitor sees 404; the cause is in the log.
//
// A directory with an index.html is found without listing, so that credentials
// that may only read objects are enough for a site.
func (b *bucketFS) Open(name string) (http.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), questionTime)
	defer cancel()
	key := b.prefix + strings.TrimPrefix(path.Clean("/"+name), "/")
	directory := key + "/"
	if key == b.prefix {
		directory = b.prefix
	} else if file, ok := b.object(ctx, key); ok {
		return file, nil
	}
	if _, ok := b.object(ctx, directory+"index.html"); ok || b.hasEntries(ctx, directory) {
		return &object{bucket: b, key: directory, info: info{name: path.Base(directory), directory: true}}, nil
	}
	if b.spaKey != "" {
		if file, ok := b.object(ctx, b.spaKey); ok {
			return file, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (b *bucketFS) object(ctx context.Context, key string) (*object, bool) {
	stat, err := b.client.StatObject(ctx, b.bucket, key, minio.StatObjectOptions{})
	if err != nil {
		b.note("head", key, err)
		return nil, false
	}
	return &object{bucket: b, key: key, etag: stat.ETag, info: info{name: path.Base(key), size: stat.Size, modified: stat.LastModified}}, true
}

// hasEntries also says yes for the top of an empty bucket that may be listed.
func (b *bucketFS) hasEntries(ctx context.Context, directory string) bool {
	ctx, cancel := context.WithCancel(ctx) // ends the listing after its first entry
	defer cancel()
	for entry := range b.client.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: directory, MaxKeys: 1}) {
		if entry.Err != nil {
			b.note("list", directory, entry.Err)
		}
		return entry.Err == nil
	}
	return directory == b.prefix
}

// note logs what is not simply absence.
func (b *bucketFS) note(verb, key string, err error) {
	if minio.ToErrorResponse(err).Code != "NoSuchKey" {
		log.Printf("%s %s/%s: %v", verb, b.bucket, key, err)
	}
}

// object is an http.File. A file's content is asked for at the first Read after
// Open or Seek and passed through as it arrives, so memory does not grow with
// size, and neither HEAD nor "not modified" fetches any of it.
type object struct {
	bucket  *bucketFS
	key     string
	etag    string
	info    info
	offset  int64
	content io.ReadCloser
	cancel  context.CancelFunc
	entries []fs.FileInfo
	listed  bool
}

func (o *object) Stat() (fs.FileInfo, error) { return o.info, nil }

func (o *object) Read(buffer []byte) (int, error) {
	if o.info.directory {
		return 0, &fs.PathError{Op: "read", Path: o.key, Err: errors.New("is a directory")}
	}
	if o.offset >= o.info.size {
		return 0, io.EOF
	}
	if o.content == nil {
		if err := o.fetch(); err != nil {
			log.Printf("get %s/%s: %v", o.bucket.bucket, o.key, err)
			return 0, err
		}
	}
	n, err := o.content.Read(buffer)
	o.offset += int64(n)
	return n, err
}

// fetch opens the content at the offset. Its size has been promised to the
// visitor, so it must be the same object still.
func (o *object) fetch() error {
	var options minio.GetObjectOptions
	if err := options.SetMatchETag(o.etag); err != nil {
		return err
	}
	if o.offset > 0 {
		if err := options.SetRange(o.offset, 0); err != nil { // to the end
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	content, _, _, err := o.bucket.client.GetObject(ctx, o.bucket.bucket, o.key, options)
	if err != nil {
		cancel()
		return err
	}
	o.content, o.cancel = content, cancel
	return nil
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.offset
	case io.SeekEnd:
		offset += o.info.size
	}
	if offset < 0 {
		return 0, &fs.PathError{Op: "seek", Path: o.key, Err: fs.ErrInvalid}
	}
	if offset != o.offset {
		o.Close()
		o.offset = offset
	}
	return offset, nil
}

// Close gives up content that is still arriving.
func (o *object) Close() error {
	if o.content != nil {
		o.cancel()
		o.content.Close()
		o.content = nil
	}
	return nil
}

// Readdir returns what is directly under a directory.
func (o *object) Readdir(count int) ([]fs.FileInfo, error) {
	if !o.info.directory {
		return nil, &fs.PathError{Op: "readdir", Path: o.key, Err: errors.New("not a directory")}
	}
	if !o.listed {
		if err := o.list(); err != nil {
			return nil, err
		}
	}
	if count <= 0 {
		count = len(o.entries)
	} else if len(o.entries) == 0 {
		return nil, io.EOF
	}
	count = min(count, len(o.entries))
	entries := o.entries[:count]
	o.entries = o.entries[count:]
	return entries, nil
}

func (o *object) list() error {
	ctx, cancel := context.WithTimeout(context.Background(), questionTime)
	defer cancel()
	for entry := range o.bucket.client.ListObjectsIter(ctx, o.bucket.bucket, minio.ListObjectsOptions{Prefix: o.key}) {
		if entry.Err != nil {
			o.bucket.note("list", o.key, entry.Err)
			return entry.Err
		}
		if name := strings.TrimPrefix(entry.Key, o.key); name != "" { // not the directory's own marker
			o.entries = append(o.entries, info{
				name: strings.TrimSuffix(name, "/"), directory: strings.HasSuffix(name, "/"),
				size: entry.Size, modified: entry.LastModified,
			})
		}
	}
	o.listed = true
	return nil
}

type info struct {
	name      string
	size      int64
	modified  time.Time
	directory bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return i.modified }
func (i info) IsDir() bool        { return i.directory }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.directory {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
