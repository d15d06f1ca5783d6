package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var (
	uploadPath = regexp.MustCompile(`^(/v2/.+/blobs/uploads)/?([0-9a-f]*)$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	rangeForm  = regexp.MustCompile(`^([0-9]+)-([0-9]+)$`)
)

const (
	buffers    = 8
	bufferSize = 256 << 10
)

// disk is where blobs are: a file each, which gets its name once its digest is known to be right. So nobody has to count
// the digest again to say whether a blob is there, as the library's own does.
type disk string

func (d disk) path(digest string) string {
	return filepath.Join(string(d), strings.Replace(digest, ":", "/", 1))
}

// Stat tells a blob's size.
func (d disk) Stat(_ context.Context, _ string, digest v1.Hash) (int64, error) {
	info, err := os.Stat(d.path(digest.String()))
	if errors.Is(err, os.ErrNotExist) {
		return 0, registry.ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Get opens a blob.
func (d disk) Get(_ context.Context, _ string, digest v1.Hash) (io.ReadCloser, error) {
	return os.Open(d.path(digest.String()))
}

// uploads takes blobs in chunks, on disk. The handler that it stands before keeps them in memory until the last one.
type uploads struct {
	blobs  disk
	folder string
	lock   sync.Mutex
	open   map[string]*upload
}

// upload is a blob of which a part has come. One request at a time holds its lock.
type upload struct {
	lock    sync.Mutex
	file    *os.File
	size    int64
	written chan []byte
	free    chan []byte
	digest  chan string
}

// newUpload counts the digest beside the writing, also while the next chunk is awaited: one takes about as long as the
// other.
func newUpload(file *os.File) *upload {
	u := &upload{file: file, written: make(chan []byte, buffers), free: make(chan []byte, buffers),
		digest: make(chan string, 1)}
	for range buffers {
		u.free <- make([]byte, bufferSize)
	}
	go func() {
		sum := sha256.New()
		for piece := range u.written {
			sum.Write(piece)
			u.free <- piece[:bufferSize]
		}
		u.digest <- "sha256:" + hex.EncodeToString(sum.Sum(nil))
	}()
	return u
}

func newUploads(folder string) (*uploads, error) {
	inside := filepath.Join(folder, "uploads")
	if err := os.RemoveAll(inside); err != nil { // nobody knows any more what is in them
		return nil, err
	}
	for _, needed := range []string{inside, filepath.Join(folder, "sha256")} {
		if err := os.MkdirAll(needed, 0o755); err != nil {
			return nil, err
		}
	}
	return &uploads{blobs: disk(folder), folder: inside, open: map[string]*upload{}}, nil
}

func (u *uploads) before(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := uploadPath.FindStringSubmatch(r.URL.Path)
		if parts == nil {
			handler.ServeHTTP(w, r)
			return
		}
		log.Printf("%s %s", r.Method, r.URL)
		if parts[2] == "" {
			u.begin(w, r, parts[1])
			return
		}
		found := u.find(parts[2])
		if found == nil {
			refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
			return
		}
		found.lock.Lock()
		defer found.lock.Unlock()
		if u.find(parts[2]) == nil { // it was ended meanwhile
			refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
			return
		}
		w.Header().Set("Location", r.URL.Path)
		switch r.Method {
		case http.MethodGet:
			found.tell(w, http.StatusNoContent)
		case http.MethodPatch:
			if found.take(w, r) {
				found.tell(w, http.StatusAccepted)
			}
		case http.MethodPut:
			if found.take(w, r) {
				u.finish(w, parts[2], found, r.URL.Query().Get("digest"))
			}
		case http.MethodDelete:
			u.forget(parts[2], found)
			_ = os.Remove(found.file.Name())
			w.WriteHeader(http.StatusNoContent)
		default:
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
		}
	})
}

func (u *uploads) find(name string) *upload {
	u.lock.Lock()
	defer u.lock.Unlock()
	return u.open[name]
}

func (u *uploads) begin(w http.ResponseWriter, r *http.Request, place string) {
	if r.Method != http.MethodPost {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
		return
	}
	// Blobs are not kept by repository, so what is anywhere is in all of them.
	if digest := r.URL.Query().Get("mount"); digestForm.MatchString(digest) {
		if _, err := os.Stat(u.blobs.path(digest)); err == nil {
			w.Header().Set("Docker-Content-Digest", digest)
			w.WriteHeader(http.StatusCreated)
			return
		}
	}
	name := fmt.Sprintf("%016x", rand.Uint64())
	file, err := os.Create(filepath.Join(u.folder, name))
	if err != nil {
		refuse(w, http.StatusInsufficientStorage, "UNKNOWN")
		return
	}
	begun := newUpload(file)
	if digest := r.URL.Query().Get("digest"); digest != "" { // all of it in one request
		if begun.take(w, r) {
			u.finish(w, name, begun, digest)
		} else {
			u.forget(name, begun)
		}
		return
	}
	u.lock.Lock()
	u.open[name] = begun
	u.lock.Unlock()
	w.Header().Set("Location", place+"/"+name)
	begun.tell(w, http.StatusAccepted)
}

// take adds a request's body. What has come of one that breaks off stays, and counts.
func (found *upload) take(w http.ResponseWriter, r *http.Request) bool {
	if said := r.Header.Get("Content-Range"); said != "" {
		parts := rangeForm.FindStringSubmatch(said)
		if parts == nil || parts[1] != strconv.FormatInt(found.size, 10) {
			found.refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
			return false
		}
	}
	if err := found.add(r.Body); err != nil {
		found.refuse(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
		return false
	}
	return true
}

// add writes a body to the file.
func (found *upload) add(body io.Reader) error {
	for {
		buffer := <-found.free
		count, err := body.Read(buffer)
		if _, failed := found.file.Write(buffer[:count]); failed != nil {
			count, err = 0, failed // and the digest will not be right
		}
		found.size += int64(count)
		found.written <- buffer[:count]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *uploads) finish(w http.ResponseWriter, name string, found *upload, digest string) {
	right := u.forget(name, found) == digest
	if right {
		if err := os.Rename(found.file.Name(), u.blobs.path(digest)); err != nil {
			refuse(w, http.StatusInternalServerError, "UNKNOWN")
			return
		}
		w.Header().Set("Docker-Content-Digest", digest)
		w.WriteHeader(http.StatusCreated)
		return
	}
	_ = os.Remove(found.file.Name())
	refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
}

// forget ends an upload; its file stays. Whoever holds its lock may do that, once.
func (u *uploads) forget(name string, found *upload) string {
	u.lock.Lock()
	delete(u.open, name)
	u.lock.Unlock()
	close(found.written)
	_ = found.file.Close()
	return <-found.digest
}

func (found *upload) tell(w http.ResponseWriter, status int) {
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, found.size-1)))
	w.WriteHeader(status)
}

func (found *upload) refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, found.size-1)))
	refuse(w, status, code)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": code}}})
}
