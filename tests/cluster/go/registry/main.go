// A registry that keeps everything on disk: go-containerregistry's handler, which keeps manifests in memory alone, with
// each one that it accepted written to a file and put again at the start. Blobs and their uploads are our own.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

// kept is an accepted PUT of a manifest.
type kept struct {
	Path, ContentType string
	Body              []byte
}

func main() {
	address := flag.String("address", "127.0.0.1:5000", "where to listen")
	folder := flag.String("folder", "", "where everything is kept")
	flag.Parse()
	manifests := filepath.Join(*folder, "manifests")
	if err := os.MkdirAll(manifests, 0o755); err != nil {
		log.Fatal(err)
	}
	handler := registry.New(registry.WithBlobHandler(disk(*folder)), registry.WithReferrersSupport(true))
	restore(handler, manifests)
	blobs, err := newUploads(*folder)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(*address, blobs.before(keeping(handler, manifests))))
}

// keeping records the manifests that are accepted and forgets those that are deleted.
func keeping(handler http.Handler, folder string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		changes := strings.Contains(r.URL.Path, "/manifests/") && (r.Method == http.MethodPut || r.Method == http.MethodDelete)
		if !changes {
			handler.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if answer.Code < 300 {
			if err := record(folder, r, body); err != nil {
				http.Error(w, err.Error(), http.StatusInsufficientStorage)
				return
			}
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
}

func record(folder string, r *http.Request, body []byte) error {
	sum := sha256.Sum256([]byte(r.URL.Path))
	file := filepath.Join(folder, hex.EncodeToString(sum[:])+".json")
	if r.Method == http.MethodDelete {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	content, err := json.Marshal(kept{r.URL.Path, r.Header.Get("Content-Type"), body})
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".partial", content, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".partial", file)
}

// restore puts the manifests again, oldest first: an index is refused before what it lists is there.
func restore(handler http.Handler, folder string) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		log.Fatal(err)
	}
	age := func(file string) int64 {
		info, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	sort.Slice(files, func(i, j int) bool { return age(files[i]) < age(files[j]) })
	for _, file := range files {
		content, err := os.ReadFile(file)
		var manifest kept
		if err == nil {
			err = json.Unmarshal(content, &manifest)
		}
		if err != nil {
			log.Printf("%s: %v", file, err)
			continue
		}
		request := httptest.NewRequest(http.MethodPut, manifest.Path, bytes.NewReader(manifest.Body))
		request.Header.Set("Content-Type", manifest.ContentType)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code >= 300 {
			log.Printf("%s: not restored: %d %s", manifest.Path, answer.Code, answer.Body)
		}
	}
}
