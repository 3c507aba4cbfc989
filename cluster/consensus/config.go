package consensus

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"quorate/cluster/consensus/storage"
	"quorate/fsm"
	"quorate/fsm/command"
)

// Storage, StorageOptions, Identity and MemoryStorage are the names of package storage, for those who only start a node.
type (
	Storage        = storage.Storage
	StorageOptions = storage.Options
	Identity       = storage.Identity
	MemoryStorage  = storage.Memory
)

// OpenStorage opens a data directory, or makes a new one.
func OpenStorage(dir string, opt StorageOptions) (*Storage, error) { return storage.Open(dir, opt) }

// NewMemoryStorage returns a disk in memory for simulations: it keeps what was synced over a simulated crash.
func NewMemoryStorage() *MemoryStorage { return storage.NewMemory() }

// Snapshot is a frozen state of the machine.
type Snapshot interface {
	// WriteTo streams the state while the machine goes on.
	WriteTo(w io.Writer) (int64, error)
	// Release gives the frozen state up.
	Release()
}

// Machine is what consensus needs of the replicated state machine. FromFSM makes one of an *fsm.Machine.
type Machine interface {
	Apply(index uint64, entry []byte) error
	Applied() uint64
	WaitApplied(index uint64, done func())
	Snapshot() (Snapshot, error)
	Restore(r io.Reader) error
	Now() uint64
	NextDeadline() (stamp uint64, ok bool)
	Nodes() []fsm.NodeInfo
	Node(id command.NodeID) (fsm.NodeInfo, bool)
	Limits() fsm.Limits
}

// FromFSM adapts the broker's machine.
func FromFSM(m *fsm.Machine) Machine { return machine{m} }

type machine struct{ *fsm.Machine }

// Snapshot narrows the result to what consensus needs.
func (m machine) Snapshot() (Snapshot, error) {
	s, err := m.Machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Peers sends frames to other nodes: queued, in order per peer, without blocking. False says that the frame was not
// taken (no connection, or its queue is full). The payload is copied before Send returns.
type Peers interface {
	Send(to command.NodeID, kind byte, payload []byte) bool
}

// Clock is where time comes from.
type Clock struct {
	// Wall is the wall clock.
	Wall func() time.Time
	// Boot counts from an arbitrary moment and goes on while the machine sleeps (CLOCK_BOOTTIME).
	Boot func() time.Duration
}

// SystemClock returns the clocks of the operating system.
func SystemClock() Clock {
	return Clock{Wall: time.Now, Boot: func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			panic(fmt.Sprintf("consensus: read CLOCK_BOOTTIME: %v", err))
		}
		return time.Duration(ts.Nano())
	}}
}

// Timings are the times of consensus. Validate keeps their order.
type Timings struct {
	// Heartbeat, Election and Lease are the timeouts of hashicorp/raft of those names; Commit is how long a follower of
	// an idle leader waits for the commit index.
	Heartbeat, Election, Lease, Commit time.Duration
	// Ping is how often a node asks for the leader's sign of life.
	Ping time.Duration
	// ContactLimit is the ContactAge at which a node closes its clients. NodeDown is how long after the last contact the
	// leader declares a node dead. The first is counted from sending, the second from answering, and must be longer.
	ContactLimit, NodeDown time.Duration
	// ReadTimeout is how long ReadIndex waits.
	ReadTimeout time.Duration
	// Resend is how long a batch may go without progress before the window is sent again.
	Resend time.Duration
	// SnapshotCheck is how often the size of the log is looked at.
	SnapshotCheck time.Duration
	// Transfer is how long a leader that shuts down tries to hand over; Flush how long proposals may take to finish.
	Transfer, Flush time.Duration
}

// DefaultTimings returns timings for a LAN: publishes are acknowledged again about 2 s after a leader died.
func DefaultTimings() Timings {
	return Timings{
		Heartbeat: time.Second, Election: time.Second, Lease: 750 * time.Millisecond, Commit: 5 * time.Millisecond,
		Ping: 500 * time.Millisecond, ContactLimit: 12 * time.Second, NodeDown: 15 * time.Second,
		ReadTimeout: 2 * time.Second, Resend: time.Second, SnapshotCheck: 15 * time.Second,
		Transfer: 2 * time.Second, Flush: 2 * time.Second,
	}
}

// Validate reports every setting that breaks the order that the others rely on.
func (t Timings) Validate() error {
	var errs []error
	check := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	check(t.Heartbeat >= 5*time.Millisecond && t.Election >= t.Heartbeat, "election timeout must be at least the heartbeat timeout, and that at least 5ms")
	check(t.Lease >= 5*time.Millisecond && t.Lease <= t.Heartbeat, "leader lease must be at least 5ms and at most the heartbeat timeout")
	check(t.Commit >= time.Millisecond && t.Commit <= t.Heartbeat, "commit timeout must be at least 1ms and at most the heartbeat timeout")
	check(t.Ping > 0 && 4*t.Ping <= t.ContactLimit, "contact limit must be at least four pings")
	check(t.ContactLimit+2*t.Ping <= t.NodeDown, "node-down time must exceed the contact limit by two pings")
	check(t.ContactLimit > t.Heartbeat+t.Election, "contact limit must exceed heartbeat and election timeout together")
	check(t.ReadTimeout > 0 && t.Resend > 0 && t.SnapshotCheck > 0 && t.Transfer > 0 && t.Flush > 0, "timeouts must be positive")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("timings: %w", err)
	}
	return nil
}

// Bounds are the limits in bytes and counts of consensus.
type Bounds struct {
	// BatchBytes and BatchCommands end a batch; one larger command goes alone. An entry is packed up to BatchBytes too.
	BatchBytes, BatchCommands int
	// CommandBytes is the largest command that is taken (ErrTooLarge).
	CommandBytes int
	// WindowBytes bounds what this node has proposed and not yet seen applied (ErrOverloaded).
	WindowBytes int
	// BatchesInFlight is how many batches of a node are under way at a time, EntriesInFlight how many entries of the leader.
	BatchesInFlight, EntriesInFlight int
	// SnapshotBytes of log since the last snapshot trigger the next, if that snapshot was not larger.
	SnapshotBytes uint64
	// TrailingBytes of log are kept behind a snapshot for followers that lag.
	TrailingBytes uint64
	// PersistBytesPerSecond limits the rate of writing a snapshot.
	PersistBytesPerSecond int
	// LogCacheEntries are kept in memory for the replicators.
	LogCacheEntries int
}

// DefaultBounds returns the limits that were measured to be best.
func DefaultBounds() Bounds {
	return Bounds{
		BatchBytes: 256 << 10, BatchCommands: 1024, CommandBytes: 8 << 20, WindowBytes: 64 << 20,
		BatchesInFlight: 2, EntriesInFlight: 2,
		SnapshotBytes: 256 << 20, TrailingBytes: 256 << 20, PersistBytesPerSecond: 150 << 20, LogCacheEntries: 128,
	}
}

// Config is everything a Node needs. Start it from Default.
type Config struct {
	Storage   *Storage
	Machine   Machine
	Observer  *Observer // the one that the machine's observer passes BatchApplied, BatchGap and Restored to
	Transport raft.Transport
	Peers     Peers
	Clock     Clock
	// Limits are proposed by this node whenever it leads and the machine has others.
	Limits fsm.Limits
	// ClientAddr is announced for Server Reference.
	ClientAddr string
	Timings    Timings
	Bounds     Bounds
	Logger     *slog.Logger
	// Fatal is called when the node must not go on; it is meant to end the process.
	Fatal func(error)
	// Removed is called once, on a goroutine of its own, when this server was taken out of the cluster; nil calls Fatal
	// with ErrRemoved.
	Removed func()
	// Reincarnated is called when this node was declared dead while it lived and has opened a new incarnation: the log
	// has none of its connections and routes any more. It must not block; what it proposes is in the new incarnation.
	Reincarnated func(incarnation uint64)
	// LeaderChanged is called when the known leader changes; "" is none. It must not block.
	LeaderChanged func(id command.NodeID)
}

// Default returns a Config with all settings and nothing else.
func Default() Config {
	return Config{Clock: SystemClock(), Limits: fsm.DefaultLimits(), Timings: DefaultTimings(), Bounds: DefaultBounds()}
}

func (c *Config) fill() error {
	var errs []error
	check := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	check(c.Storage != nil && c.Machine != nil && c.Observer != nil, "storage, machine and observer are needed")
	check(c.Transport != nil && c.Peers != nil, "transport and peers are needed")
	check(c.Clock.Wall != nil && c.Clock.Boot != nil, "both clocks are needed")
	b := c.Bounds
	check(b.BatchBytes > 0 && b.BatchCommands > 0 && b.BatchesInFlight > 0 && b.EntriesInFlight > 0, "batch bounds must be positive")
	check(b.CommandBytes >= 1<<10 && b.CommandBytes <= 8<<20, "largest command must be from 1 KiB to 8 MiB")
	check(b.WindowBytes >= b.CommandBytes, "window must hold the largest command")
	check(b.PersistBytesPerSecond > 0 && b.LogCacheEntries > 0, "snapshot rate and log cache must be positive")
	errs = append(errs, c.Timings.Validate())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("consensus configuration: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	return nil
}
