// Package admin is the HTTP side of a node: whether it lives, whether it can serve, its numbers and its view of the
// cluster. It shows and changes nothing else.
//
//	GET /livez    200 as long as the process answers
//	GET /readyz   200 when the node can serve clients, else 503 and one line that says why
//	GET /status   the cluster as this node sees it, as JSON (what "quorate status" prints)
//	GET /digest   the digest of the replicated state and the log index it is of, as JSON
//	GET /metrics  Prometheus text format
//
// Liveness and readiness differ on purpose: a node without a leader must not be restarted for it, only passed over.
//
// There is no authentication yet, so it belongs on loopback or a network of operators. Nothing here names a client.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the HTTP server. A client beyond them is cut off.
const (
	readTimeout     = 5 * time.Second
	writeTimeout    = 10 * time.Second
	pprofTimeout    = 5 * time.Minute // a profile or trace runs for as long as it is asked to
	idleTimeout     = time.Minute
	headerBytesMax  = 16 << 10
	statusTimeout   = 2 * time.Second // peers that do not answer in time are shown as unreachable
	scrapesInFlight = 4
)

// Node is what admin shows. All methods are safe for concurrent use.
type Node interface {
	// Ready is nil when the node can serve clients; the error says why not.
	Ready() error
	// Status asks the other nodes, until ctx ends.
	Status(ctx context.Context) Status
	// Digest is the digest of the replicated state after the log index.
	Digest() (index, digest uint64)
}

// Status is the cluster as one node sees it.
type Status struct {
	// Leader is the leader's name, "" when none is known.
	Leader string `json:"leader"`
	// Cluster is the cluster's id, "" before there is one.
	Cluster string `json:"cluster,omitempty"`
	// Asked is the name of the node that answered.
	Asked string `json:"asked,omitempty"`
	// Nodes are sorted by name.
	Nodes []Member `json:"nodes"`
}

// The states of a Member.
const (
	StateLeader      = "leader"
	StateFollower    = "follower"    // a voter that has leader contact
	StateNonvoter    = "nonvoter"    // applies the log and serves clients, but has no vote
	StateSeparated   = "separated"   // runs, but has no leader contact
	StateJoining     = "joining"     // runs, but no cluster has taken it in yet
	StateUnreachable = "unreachable" // does not answer the node that was asked
)

// Member is one node of the cluster.
type Member struct {
	// Name is the label people gave it; ID identifies it.
	Name string `json:"name"`
	ID   string `json:"id"`
	// State is one of the State constants.
	State string `json:"state"`
	// Voter says whether it has a vote in the Raft configuration.
	Voter bool `json:"voter"`
	// Applied is the index of the last log entry it has applied.
	Applied uint64 `json:"applied"`
	// Ready says whether it can serve clients, Reason why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Connections are the clients connected to it. Sessions are those of the whole cluster, as this node knows them.
	Connections int `json:"connections"`
	Sessions    int `json:"sessions"`
	// Address is where clients reach it, Version what it runs.
	Address string `json:"address,omitempty"`
	Version string `json:"version,omitempty"`
	// Received and Sent are totals of PUBLISH packets from and to its clients since it started, for rates.
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
}

// Config of a Server.
type Config struct {
	Node    Node
	Metrics prometheus.Gatherer
	// Pprof serves the Go profiler at /debug/pprof/.
	Pprof  bool
	Logger *slog.Logger
}

// Server answers HTTP requests on one listener.
type Server struct {
	http *http.Server
	ln   net.Listener
	done chan struct{}
	err  error // of Serve; read after done
}

// Start serves ln, which it closes, until Close.
func Start(ln net.Listener, cfg Config) *Server {
	s := &Server{ln: ln, done: make(chan struct{}), http: &http.Server{
		Handler: Handler(cfg), ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytesMax,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug), // what a scanner sends is no news
	}}
	if cfg.Pprof {
		s.http.WriteTimeout = pprofTimeout
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.err = fmt.Errorf("serve admin HTTP on %s: %w", ln.Addr(), err)
			cfg.Logger.Error("admin listener is gone", "err", err)
		}
	}()
	return s
}

// Addr is the address listened on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close lets requests under way finish until ctx ends, then cuts them off. It may be called twice.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("close admin HTTP: %w", errors.Join(err, s.http.Close()))
	}
	<-s.done
	return errors.Join(err, s.err)
}

// Handler answers the requests that the package comment lists.
func Handler(cfg Config) http.Handler {
	h := &handler{node: cfg.Node}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.live)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /status", h.status)
	mux.HandleFunc("GET /digest", h.digest)
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesInFlight, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}))
	if cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

type handler struct{ node Node }

func (h *handler) live(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "alive") }

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.node.Ready(); err != nil {
		text(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	text(w, http.StatusOK, "ready")
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	s := h.node.Status(ctx)
	if s.Nodes == nil {
		s.Nodes = []Member{} // [] and not null
	}
	writeJSON(w, s)
}

func (h *handler) digest(w http.ResponseWriter, _ *http.Request) {
	index, digest := h.node.Digest()
	writeJSON(w, struct {
		Index  uint64 `json:"index"`
		Digest string `json:"digest"` // hexadecimal: JSON numbers of 64 bits do not survive every reader
	}{index, fmt.Sprintf("%016x", digest)})
}

// text and writeJSON ignore write errors: the client is gone then.
func text(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, line)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}
