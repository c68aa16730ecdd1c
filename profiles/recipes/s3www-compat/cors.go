package main

import (
	"net/http"
	"strings"
)

// withCORS lets pages of the given origins read. An origin may hold one "*".
func withCORS(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		allowed := origin != "" && matchesAny(origins, origin)
		if allowed {
			header.Set("Access-Control-Allow-Origin", origin)
			header.Set("Access-Control-Expose-Headers", "Content-Range, Last-Modified")
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			if allowed {
				header.Set("Access-Control-Allow-Methods", "GET, HEAD")
				header.Set("Access-Control-Allow-Headers", "Range, If-Modified-Since, If-Range")
				header.Set("Access-Control-Max-Age", "600")
			}
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func matchesAny(patterns []string, origin string) bool {
	for _, pattern := range patterns {
		before, after, wild := strings.Cut(pattern, "*")
		if pattern == origin || wild && len(origin) >= len(before)+len(after) &&
			strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after) {
			return true
		}
	}
	return false
}
